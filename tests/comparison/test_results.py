"""What is made of rows: means, spreads, ranks."""

from genkit.comparison.results import FAILED, FINISHED, means, quality, summary

ONE = {"method": "a", "seed": 0, "fate": FINISHED, "sentence": "", "fd": 2.0, "sw": 1.0}
TWO = {**ONE, "seed": 1, "fd": 4.0}
OTHER = {**ONE, "method": "b", "fd": 2.5}
LOST = {"method": "c", "seed": 0, "fate": FAILED, "sentence": "it broke"}


def test_methods_are_ranked_by_the_mean_of_their_seeds():
    told = summary([LOST, ONE, OTHER, TWO])
    assert [(row["method"], row["seeds"], row.get("fd")) for row in told] == [
        ("b", 1, 2.5),
        ("a", 2, 3.0),
        ("c", 0, None),
    ]
    assert told[1]["spread"] == 2.0 and "spread" not in told[0]
    assert told[2]["sentence"] == "it broke" and told[2]["fate"] == FAILED


def test_a_seed_that_failed_is_told_beside_those_that_did_not():
    told = summary([ONE, {**LOST, "method": "a", "seed": 1}])
    assert told[0]["fate"] == "finished; failed" and told[0]["seeds"] == 1


def test_what_not_all_have_ranks_nobody():
    assert quality([ONE, {**OTHER, "fd": 1.0}]) == "fd"
    assert quality([ONE, {key: value for key, value in OTHER.items() if key != "fd"}]) == "sw"
    assert quality([]) is None and quality([LOST]) is None
    assert means([ONE, LOST], ["fd"]) == {} and means([], ["fd"]) == {}
