"""What a fit keeps on disk: killed anywhere, it ends as if it had not been."""

import pytest
import torch

from latentbench.fitting import Fitting

COUNT = 6


def train(fitting: Fitting, stop: int = COUNT, optimizer=torch.optim.Adam):
    """Fit a line, and die before step `stop`; return the parameters and the steps made."""
    w = torch.zeros(3, requires_grad=True)
    own, made = optimizer([w], lr=0.1), []
    with torch.enable_grad():
        for step in fitting.steps("line", COUNT, {"w": w}, own):
            if step == stop:
                raise KeyboardInterrupt
            made.append(step)
            own.zero_grad()
            ((w - torch.tensor([1.0, 2.0, 3.0])) ** 2 * (step + 1)).sum().backward()
            own.step()
    return w.detach(), made


@pytest.mark.parametrize("stop", range(1, COUNT))
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_a_killed_fit_ends_with_the_same_bytes(tmp_path, stop, optimizer):
    whole, _ = train(Fitting(None), optimizer=optimizer)
    with pytest.raises(KeyboardInterrupt):
        train(Fitting(tmp_path, seconds=0), stop, optimizer)
    resumed, made = train(Fitting(tmp_path, seconds=0), optimizer=optimizer)
    assert made == list(range(stop, COUNT))
    assert torch.equal(resumed, whole)


def test_a_finished_loop_is_not_made_again(tmp_path):
    first, _ = train(Fitting(tmp_path))
    again, made = train(Fitting(tmp_path))
    assert made == [] and torch.equal(first, again)


def test_a_damaged_file_begins_again(tmp_path, caplog):
    whole, _ = train(Fitting(tmp_path))
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    again, made = train(Fitting(tmp_path))
    assert made == list(range(COUNT)) and torch.equal(again, whole)
    assert "damaged" in caplog.text


def test_a_folder_that_cannot_be_written_costs_no_result(tmp_path):
    (tmp_path / "file").touch()
    whole, _ = train(Fitting(None))
    found, _ = train(Fitting(tmp_path / "file" / "fit", seconds=0))
    assert torch.equal(found, whole)


def test_progress_is_reported():
    seen = []
    train(Fitting(None, report=lambda step, count: seen.append((step, count))))
    assert seen == [(k + 1, COUNT) for k in range(COUNT)]


def test_a_file_of_another_fit_of_the_cell_is_not_taken(tmp_path, caplog):
    """A cell that fits again under another seed keeps both, in folders of their own."""
    folders = [tmp_path / name for name in ("fit", "fit_1")]
    train(Fitting(folders[0], cell="a"))
    folders[1].mkdir()
    (file,) = folders[0].glob("*.safetensors")
    (folders[1] / file.name).write_bytes(file.read_bytes())
    _, made = train(Fitting(folders[1], cell="a"))
    assert made == list(range(COUNT)) and "a copy of another file" in caplog.text
