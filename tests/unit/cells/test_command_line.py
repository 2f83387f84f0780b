"""Wrong commands are answered in a line each, by names and signatures alone."""

import importlib.util
import shlex

import pytest
from hydra.errors import HydraException
from hydra.utils import get_class

from latentbench import plugins
from latentbench.cells.command_line import check, explain
from latentbench.cells.words import quoted, read_word
from latentbench.errors import WrongCommand

FOLDER = "dataset=folder"
EDITING = "benchmark=attribute_editing"


def said(command: str) -> str | None:
    """Return what is said of a command line, or None where nothing is wrong."""
    plugins.register()
    try:
        check(shlex.split(command))
    except WrongCommand as error:
        return explain(error)
    return None


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("metod=slerp", "unknown setting 'metod'; did you mean method"),
        ("sed=3", "unknown setting 'sed'; did you mean seed?"),
        ("+foo=1", "unknown setting 'foo'; known: benchmark, dataset"),
        ("++foo.bar=1", "unknown setting 'foo.bar'"),
        ("benchmark/foo=1", "unknown setting 'benchmark/foo'; did you mean benchmark?"),
        ("method@x=slerp", "unknown setting 'method@x'; did you mean method?"),
        ("method=slrep", "unknown method 'slrep'; did you mean slerp"),
        ("model=null", "model must be the name of an option; got null; known: "),
        ("model=", "model must be the name of an option; got ''"),
        ("model=3", "model must be the name of an option; got 3"),
        ("method=[slerp]", "method must be the name of an option; got ['slerp']"),
        ("tracker=null", "got null; none is off; known: none, wandb"),
        ("+method=slerp", "method has a choice already; write method=slerp"),
        ("~model.steps", "takes something away that a cell needs; write model.steps=VALUE"),
        ("~model", "write model=VALUE"),
        ("~tracker", "write tracker=none"),
        ("slerp", "'slerp' sets nothing; write NAME=VALUE"),
        ("=slerp", "unknown setting ''"),
        ("launch.x=1", "unknown setting of launch 'x'; known: dry"),
        ("launch=ray", "launch=ray starts workers for the cells of a sweep; add -m"),
        ("-m launch=local,cores", "a command has one launcher; write launch=NAME"),
        ("-m launch=cores launch.workers=0", "launch.workers must be a whole number from 1 to"),
        ("-m launch=cores launch.worker=2", "unknown setting of launch 'worker'; did you mean"),
        ("-m launch=ray launch.retries=-1", "launch.retries must be a whole number from 0 to 100"),
        ("-m launch=ray runtime.device=cuda:1", "device=cuda:1 names one card, and launch=ray"),
        ("-m launch=slurm launch.cluster=lsf", "launch.cluster must be slurm, local or debug"),
        ("sweep=demo", "sweep=demo names many cells; add -m"),
        ("-m sweep=dmo", "unknown sweep 'dmo'; did you mean demo?"),
        ("-m method=lerp,slrp", "unknown method 'slrp'; did you mean slerp"),
        ("method=lerp,slerp", "names several values; add -m to run each, or write one text in "),
        ("--cfg job -m", "--cfg and --multirun do not go together"),
        ("--cfg jobs", "invalid choice: 'jobs'"),
        ("--metod slerp", "unrecognized arguments: --metod"),
        ("metric=psnrr", "unknown metric 'psnrr'; did you mean psnr?"),
        ("metric=[psnrr,ssim]", "unknown metric 'psnrr'; did you mean psnr?"),
        ("metric=[]", "leaves nothing to measure; name at least one metric"),
        ("metric=[psnr,ssim,psnr]", "names psnr twice; name each metric once"),
        ("benchmark.n=2 benchmark.n=3", "n is set by benchmark.n=2 and benchmark.n=3; leave all"),
        ("method=lerp method=slerp", "method is set by method=lerp and method=slerp"),
        ("metric=null", "metric must be the name of an option; got null"),
        ("metric.pnsr.against=[truths]", "unknown metric 'pnsr'; did you mean psnr?"),
        ("metric.kid.seed=1", "kid is not measured; write metric=[psnr,"),
        ("metric=[kid] metric.kid.sed=1", "of metric.kid 'sed'; did you mean seed?"),
        ("metric=[kid] metric.kid.seed=-1", "metric.kid.seed must be a whole number from 0 to 42"),
        ("metric.psnr.against=[truth]", "metric.psnr.against[0] must be truths, sources or reco"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_answered_with_what_there_is(command, answer):
    found = said(command)
    assert found is not None and answer in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("seed=1.5", "seed must be a whole number from -9223372036854775808 to 92"),
        ("seed=99999999999999999999", "got 99999999999999999999"),
        ("seed='\"3\"'", "got '3'"),
        ("seed=null", "got null"),
        ("seed=[1]", "got [1]"),
        ("-m seed=1,2,x", "got 'x'"),
        ("runtime.threads=0", "runtime.threads must be a whole number from 1 to 1024; got 0"),
        ("runtime.batch_size=0", "runtime.batch_size must be a whole number from 1 to 1000000"),
        ("runtime.max_failed_share=2", "must be a number of 0 or more and below 1; got 2"),
        ("runtime.max_failed_share=nan", "got nan"),
        ("runtime.fail_fast=1", "runtime.fail_fast must be true or false; got 1"),
        ("runtime.device=gpu", "text such as auto, cpu, cuda or cuda:1; got 'gpu'"),
        ("runtime.order=random", "runtime.order must be natural or reversed; got 'random'"),
        ("runtime.thread=1", "unknown setting of runtime 'thread'; did you mean threads?"),
        ("runtime=3", "runtime holds several settings; set one of runtime.device, "),
        ("runtime.execution=1", "holds several settings; write runtime.execution.NAME=VALUE"),
        ("runtime.execution.attention=flsh", "did you mean flash?"),
        ("runtime.execution.ofload=true", "unknown setting of runtime.execution 'ofload'"),
        ("results.dir=", "results.dir must be text that is not empty; got ''"),
        ("results.dir=2024", "got 2024, which is text only in quotes"),
        ("results.overwrite=allways", "did you mean always?"),
        ("results.images=-1", "results.images must be a whole number from 0 to 100000; got -1"),
        ("method.gian=2", "unknown setting of method 'gian'; did you mean guidance?"),
        ("method.steps=0", "method.steps must be a whole number from 1 to 1000, or null; got 0"),
        ("method.steps=1.5", "got 1.5"),
        ("method.steps=true", "got true"),
        ("method.steps='\"3\"'", "got '3'"),
        ("method.steps.x=1", "method.steps has no settings of its own"),
        ("-m method.steps=10,0", "method.steps must be a whole number from 1 to 1000"),
        ("model.steps=2.5", "model.steps must be a whole number from 1 to 1000; got 2.5"),
        ("model.device=cuda", "model.device is given by runtime.device; write runtime.dev"),
        ("benchmark.n=0", "benchmark.n must be a whole number from 1 to 1000000; got 0"),
        ("dataset.correlation=nan", "dataset.correlation must be a number from 0 to 1; got nan"),
        (f"{EDITING} benchmark.attributes=[]", "must be a non-empty list of distinct entries"),
        (f"{EDITING} benchmark.attributes=glasses+", "; write [glasses+]"),
        ("benchmark=interpolation benchmark.kind=bogus", "must be noise, prompt or image"),
        (FOLDER, "dataset.path is not set; give dataset.path=VALUE"),
        (f"{FOLDER} dataset.path=", "dataset.path must be text that is not empty; got ''"),
        (f"{FOLDER} dataset.path=x dataset.limit=-1", "dataset.limit must be a whole number from"),
        ("tracker.mode=onlin", "did you mean online?"),
        ("-m method=lerp,aid method.mode=inner", "is not a setting that every method has"),
        ("-m method=lerp,aid ++method.mode=iner", "did you mean inner?"),
        ("-m sweep=demo model.steps=0", "model.steps must be"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_answered_with_what_is_allowed(command, answer):
    found = said(command)
    assert found is not None and answer in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "command",
    [
        "",
        "method=slerp model=faces_ldm benchmark=interpolation",
        "-m method=lerp,slerp model=faces_ddpm,faces_ldm benchmark=interpolation",
        "-m method=lerp,aid ++method.mode=inner",
        "-m 'seed=range(1,4)' method=glob(*)",
        "-m sweep=demo",
        "-m sweep=zoo results.dir=results/zoo",
        "metric=[kid] metric.kid.seed=1",
        "metric=psnr",
        "-m benchmark=generation,reconstruction ++metric.psnr.against=[sources]",
        "results.cache=null runtime.device=cuda:1 seed=-1 tracker=none",
        f"{FOLDER} 'dataset.path=\"/data/a(b)=c, d\"' ++dataset.table=x.csv",
        "hydra.job.num=3 --cfg job",
        "--help",
        "-m method.skip=interval(0,1)",
        "+metric.again={_target_: metrics.pairs.psnr.PSNR}".replace("{", "'{").replace("}", "}'"),
    ],
)
def test_a_right_command_passes(command):
    assert said(command) is None


def test_everything_that_is_wrong_is_said_in_one_answer():
    lines = str(said("metod=slerp sed=3 runtime.threads=0")).split("\n")
    assert [line.split(";")[0] for line in lines] == [
        "unknown setting 'metod'",
        "unknown setting 'sed'",
        "runtime.threads must be a whole number from 1 to 1024",
    ]
    assert str(said("method.steps=0 model.steps=0")).count("must be") == 2


@pytest.mark.parametrize(
    "value",
    [
        "/a(b", "/a=b", "/a b(", "/a[b", "/a{b}", "/a#b", "~/a", "/é", "/a;b", "/a&b", "(x)",
        "/a'b\"c(", "it's", "a\\(b", "a(b\\", "/a|b", "/a?b(", "@x", "a:b=c",
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read_is_answered_with_its_quotes(value):
    found = said(shlex.quote(f"dataset.path={value}"))
    if found is not None and "cannot be read" in found:
        advice = found.split("put its value in quotes: ")[1]
        assert read_word(shlex.split(advice)[0]).values == (value,)
    else:
        assert read_word(f"dataset.path={value}").key == "dataset.path"


@pytest.mark.parametrize(
    ("text", "meant"), [("'a", "a"), ('"a', "a"), ("a'", "a'"), ('"/a b(c"d', '/a b(c"d')]
)
def test_unbalanced_quotes_are_answered_with_balanced_ones(text, meant):
    found = str(said(shlex.quote(f"method.guide={text}")))
    assert "cannot be read; put its value in quotes: " in found
    assert read_word(shlex.split(found.split("quotes: ")[1])[0]).values == (meant,)


def test_quotes_keep_a_text_as_it_is():
    for text in ("plain", "a b", 'say "x"', "it's", "a\\b", "trailing\\", "1.5", "null", "[a]", ""):
        assert read_word(shlex.split(quoted("x.y", text))[0]).values == (text,)


def test_hydras_own_errors_are_a_line():
    error = HydraException("Could not override 'x'.\nTo append use +x=1")
    error.__cause__ = ValueError("Key 'x' not in 'Y'\n    full_key: x\n    object_type=Y")
    assert explain(error) == "Could not override 'x'. To append use +x=1: Key 'x' not in 'Y'"


# ---------------------------------------------------------------- engines of launchers


@pytest.mark.parametrize(("launch", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_is_named_with_its_command(monkeypatch, launch, module):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    told = list(get_class(f"latentbench.cells.launch.{launch.capitalize()}")().faults("auto"))
    assert told == [
        f"launch={launch} needs {module}, which is not installed: uv sync --extra {launch}"
    ]


def test_slurm_is_refused_where_there_is_none(monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    assert "finds no sbatch on this machine" in said("-m launch=slurm")
    assert said("-m launch=slurm launch.cluster=local") is None
