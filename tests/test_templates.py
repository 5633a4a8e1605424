"""Pages are filled in with nothing that could run."""

import pytest
from jinja2 import UndefinedError

from pneumo import templates


def test_what_is_filled_in_is_escaped():
    page = templates.load("pneumo.inference", "view.html").render(nonce='"><script>alert()')
    assert "<script>alert()" not in page
    assert "&gt;&lt;script&gt;alert()" in page


def test_a_value_that_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="nonce"):
        templates.load("pneumo.inference", "view.html").render()
