"""What the tests of asking share: a teacher that is served, and its address."""

from __future__ import annotations

from tests.compress.asking.toy_teacher import ToyTeacher
from tests.support.known_model import shared

serving, teacher, url = shared(ToyTeacher)
