import math

import pytest

pytest.importorskip("pandas")

from mmel.report.samples import weighted_texts


def test_a_row_a_sample_with_short_numbers():
    samples = [
        {"text": "[a] dog", "teacher": [0.25, 0.75], "target": 1, "weight": math.nan},
        {"text": "[the] dog", "teacher": [0.5, 0.5], "target": 0.123456, "weight": 2 / 3},
    ]
    html = weighted_texts(samples).to_html()
    for shown in ("[a] dog", "[the] dog", "0.250, 0.750", "0.123", "0.667"):
        assert shown in html
    assert "nan" not in html
    assert "0.1234" not in html
