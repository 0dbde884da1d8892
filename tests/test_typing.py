"""The types of the library, as mypy reads them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USE = """
import torch
from mmel import KL, ChiSquare, CVaR, Maximum, MMELHardLoss, MMELSoftLoss, UniformLoss, WorstCaseLoss
from mmel import augmentation_weights, maximal_expected_loss, sample_views

logits, targets = torch.zeros(2, 3, 4), torch.zeros(2).long()
total: torch.Tensor = MMELHardLoss(lambda_p=1)(logits, targets=targets)
total += MMELSoftLoss(lambda_t=0.5, worst_case=CVaR(0.5))(logits, targets, logits.softmax(dim=-1))
total += UniformLoss(torch.nn.functional.cross_entropy, "sum")(logits, targets)
for worst_case in (KL(), ChiSquare(rho=0.1), Maximum()):
    total += WorstCaseLoss(worst_case, base_loss="kl")(logits, targets)
    total += worst_case.value(logits[..., 0])
losses = MMELHardLoss().terms(logits, targets).sample_losses
total += maximal_expected_loss(losses, 1.0) + augmentation_weights(losses, 1.0) + sample_views(losses, 1.0)

MMELHardLoss(lambda_p="one")  # wrong
MMELSoftLoss(lambda_t=None)  # wrong
WorstCaseLoss(1.0)  # wrong
WorstCaseLoss(Maximum)  # wrong
CVaR("0.5")  # wrong
MMELHardLoss()(logits, [0, 1])  # wrong
MMELHardLoss()(logits, targets, logits)  # wrong
text: str = UniformLoss()(logits, targets)  # wrong
"""


@pytest.mark.slow
def test_the_library_is_typed_and_a_wrong_type_is_an_error(tmp_path):
    path = tmp_path / "use.py"
    path.write_text(USE, encoding="utf-8")
    # As pyproject.toml configures it, with the user's file beside the package.
    command = [sys.executable, "-m", "mypy", "mmel", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    errors = re.findall(r"^(.*):(\d+): error", done.stdout, re.M)
    # By its name: mypy's cache repeats the folder of an earlier test.
    found = [int(line) if Path(file).name == path.name else file for file, line in errors]
    assert found == [number for number, line in enumerate(USE.splitlines(), 1) if line.endswith("# wrong")], done.stdout
