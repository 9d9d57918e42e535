"""Which files the tiers of tests leave unread, and how the others are shared out."""

from pathlib import Path

from tests.conftest import LONGEST, TOGETHER, marks_of_file, share_of


def test_only_a_mark_that_a_file_gives_to_all_of_its_tests_leaves_it_unread() -> None:
    several = 'pytestmark = [\n    pytest.mark.slow,\n    pytest.mark.long("soak"),\n]\n'
    many = f"import x\n\n{several}\n@pytest.mark.delivered\ndef test_a(): ...\n"
    assert marks_of_file(many) == {"slow", "long"}
    assert marks_of_file('pytestmark = pytest.mark.long("matrix")\n') == {"long"}
    assert marks_of_file('pytestmark = pytest.mark.long("soak")\nSLOW = pytest.mark.slow\n') == {"long"}
    assert marks_of_file("@pytest.mark.slow\ndef test_a(): ...\n") == set()
    assert marks_of_file('pytestmark = pytest.mark.filterwarnings("ignore")\n') == {"filterwarnings"}


def test_files_that_share_what_takes_long_to_begin_are_run_by_one_process_and_the_others_each_by_itself() -> None:
    assert share_of("tests/system/test_uploads.py::test_a[x::y]") == share_of("tests/system/test_crashes.py::test_b")
    assert share_of("tests/web/test_pages.py::test_a") == share_of("tests/web/test_review_page.py::test_b")
    assert share_of("tests/system/test_demo.py::test_a[x::y]") == "tests/system/test_demo.py"


def test_whatever_the_order_and_the_shares_name_is_there() -> None:
    folder = Path(__file__).parent
    files = [path.relative_to(folder.parent).as_posix() for path in folder.rglob("test_*.py")]
    named = [f"tests/{start}" for start in LONGEST] + [name for together in TOGETHER for name in together]
    assert [name for name in named if not any(file.startswith(name) for file in files)] == []
