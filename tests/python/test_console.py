"""Names and values of users are printed as they stand."""

import pytest
from afm.console import err, print_table, say
from home import Home


def test_a_colon_and_a_bracket_are_no_commands(capsys: pytest.CaptureFixture):
    say("a:b:c [red]x[/red]")
    err.print("got 'a:b:c' [/x]")
    print_table("[t] :b:", ["[field]", "n"], [["[/user] :b:", "1"]])
    found = capsys.readouterr()
    assert found.err == "a:b:c [red]x[/red]\ngot 'a:b:c' [/x]\n"
    assert all(text in found.out for text in ("[t] :b:", "[field]", "[/user] :b:"))


def test_a_wrong_option_is_told_as_it_was_given(own: Home):
    assert own.complaint("prepare clicks.csv --out d --split a:b:c").endswith("got 'a:b:c'")


def test_a_long_list_is_never_cut(capsys: pytest.CaptureFixture):
    ranks = ", ".join(map(str, range(100)))
    print_table("ranks", ["layer", "ranks"], [["embedding", ranks]], wrap=True)
    out = capsys.readouterr().out
    assert "…" not in out and all(f"{rank}" in out for rank in range(100))
