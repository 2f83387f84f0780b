"""The names that this checkout takes from transformers.

Its own `__init__` names every model there is, and the type checker reads all 2,400 files behind it.
A name that is missing here is added as a line.
"""

from transformers.models.auto.image_processing_auto import AutoImageProcessor as AutoImageProcessor
from transformers.models.auto.modeling_auto import AutoModel as AutoModel
from transformers.models.auto.modeling_auto import (
    AutoModelForImageClassification as AutoModelForImageClassification,
)
from transformers.models.auto.tokenization_auto import AutoTokenizer as AutoTokenizer
from transformers.models.clip.configuration_clip import CLIPConfig as CLIPConfig
from transformers.models.clip.configuration_clip import CLIPTextConfig as CLIPTextConfig
from transformers.models.clip.image_processing_clip import CLIPImageProcessor as CLIPImageProcessor
from transformers.models.clip.modeling_clip import CLIPModel as CLIPModel
from transformers.models.clip.modeling_clip import CLIPTextModel as CLIPTextModel
from transformers.models.clip.modeling_clip import (
    CLIPTextModelWithProjection as CLIPTextModelWithProjection,
)
from transformers.models.clip.tokenization_clip import CLIPTokenizer as CLIPTokenizer
from transformers.models.t5.configuration_t5 import T5Config as T5Config
from transformers.models.t5.modeling_t5 import T5EncoderModel as T5EncoderModel
from transformers.models.t5.tokenization_t5 import T5Tokenizer as T5Tokenizer
from transformers.models.vit.configuration_vit import ViTConfig as ViTConfig
from transformers.models.vit.image_processing_vit import ViTImageProcessor as ViTImageProcessor
from transformers.models.vit.modeling_vit import (
    ViTForImageClassification as ViTForImageClassification,
)
