"""Which files the tiers of tests leave unread."""

from tests.conftest import marks_of_file


def test_only_a_mark_that_a_file_gives_to_all_of_its_tests_leaves_it_unread() -> None:
    several = 'pytestmark = [\n    pytest.mark.slow,\n    pytest.mark.long("soak"),\n]\n'
    many = f"import x\n\n{several}\n@pytest.mark.delivered\ndef test_a(): ...\n"
    assert marks_of_file(many) == {"slow", "long"}
    assert marks_of_file('pytestmark = pytest.mark.long("matrix")\n') == {"long"}
    assert marks_of_file('pytestmark = pytest.mark.long("soak")\nSLOW = pytest.mark.slow\n') == {"long"}
    assert marks_of_file("@pytest.mark.slow\ndef test_a(): ...\n") == set()
    assert marks_of_file('pytestmark = pytest.mark.filterwarnings("ignore")\n') == {"filterwarnings"}
