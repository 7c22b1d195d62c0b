"""Labels of channels are told apart, whoever named them."""

from voxmlx.text.labels import distinct_labels


def test_no_two_labels_are_the_same() -> None:
    assert distinct_labels(["me", "them", "me", "me"]) == ["me", "them", "me 2", "me 3"]
    assert distinct_labels(["me 2", "me", "me"]) == ["me 2", "me", "me 3"]
    assert distinct_labels([]) == []


def test_a_label_that_was_given_does_not_meet_one_of_ours() -> None:
    assert distinct_labels(["channel 2", "channel 2"]) == ["channel 2", "channel 2 2"]
