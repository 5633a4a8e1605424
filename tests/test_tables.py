"""One table for terminals, Markdown, CSV and LaTeX."""

from pneumo.tables import Table, counted

TABLE = Table("t", "Scores", ["run", "Dice, %"], [["exp_5", "0.8 ± 0.1"], ["a&b", "–"]], "95 %.")


def test_a_number_and_its_noun_agree():
    assert [counted(n, "film") for n in (0, 1, 1200)] == ["0 films", "1 film", "1,200 films"]


def test_the_same_table_in_every_form():
    assert TABLE.markdown() == (
        "## Scores\n\n| run | Dice, % |\n|---|---|\n| exp_5 | 0.8 ± 0.1 |\n| a&b | – |\n\n95 %.\n"
    )
    assert TABLE.csv() == 'run,"Dice, %"\nexp_5,0.8 ± 0.1\na&b,–\n'
    assert TABLE.aligned() == ("Scores\nrun    Dice, %\nexp_5  0.8 ± 0.1\na&b    –\n95 %.")


def test_what_is_a_command_to_latex_is_escaped():
    text = TABLE.latex()
    assert r"\caption{Scores. 95 \%.}" in text
    assert r"run & Dice, \% \\" in text
    assert r"exp\_5 & 0.8 $\pm$ 0.1 \\" in text
    assert r"a\&b & -- \\" in text
