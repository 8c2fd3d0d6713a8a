"""A record that one process computes is not computed by another at the same time."""

from pathlib import Path

import numpy as np

from tests.support.processes import Fresh, until
from understudy.bank._claims import Claims

HOLDING = """
import sys, time
from pathlib import Path
import numpy as np
from understudy.bank._claims import Claims
folder = Path(sys.argv[1])
claims = Claims(folder / "claims")
with claims.claimed(np.array([5, 3])):
    (folder / "held").touch()
    time.sleep(float(sys.argv[2]))
    (folder / "free").touch()
"""


def test_others_wait_for_the_same_records_alone(tmp_path: Path) -> None:
    holder = Fresh("-c", HOLDING, tmp_path, "1.5")
    until((tmp_path / "held").exists, holder)
    claims = Claims(tmp_path / "claims")
    with claims.claimed(np.array([1, 2, 4])):
        assert claims.claim_free(np.array([6, 3, 7])).tolist() == [True, False, True]
        assert not (tmp_path / "free").exists()
    with claims.claimed(np.array([7, 5])):
        assert (tmp_path / "free").exists()
    holder.finish()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    holder = Fresh("-c", HOLDING, tmp_path, "600")
    until((tmp_path / "held").exists, holder)
    holder.kill()
    with Claims(tmp_path / "claims").claimed(np.arange(10)):
        pass


def test_a_folder_that_takes_no_claims_is_left_to_the_first_write(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "missing" / "claims")
    with claims.claimed(np.array([1])):
        assert claims.claim_free(np.array([2])).all()
