"""Tables as people save them: what sets cells apart, ends of lines, mark, gzip, blank lines."""

import csv
import gzip
import io

from hypothesis import strategies as st

ids = st.from_regex(r"[A-Za-z]{0,3}[0-9][0-9._-]{0,8}[0-9a-z]", fullmatch=True)
names = st.from_regex(r"[A-Za-zÀ-ÿ一-三][ A-Za-zÀ-ÿ,;'\"-]{0,6}[A-Za-z0-9]", fullmatch=True)
dialects = st.tuples(
    st.sampled_from([",", ";", "\t"]), st.sampled_from(["\n", "\r\n"]), *[st.booleans()] * 3
)


def as_people_save_it(rows, delimiter, end, mark, zipped, blank):
    """A table's bytes in one of the dialects."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    content = text.getvalue().replace(end, 2 * end) if blank else text.getvalue()
    raw = content.encode("utf-8-sig" if mark else "utf-8")
    return gzip.compress(raw) if zipped else raw
