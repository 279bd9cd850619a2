"""CPython's own tests of selectors, run on ours.

They are installed with the interpreter, so each interpreter brings those of its version; some
distributions leave them out.
"""

from __future__ import annotations

import unittest

import pytest
from conftest import IO_URING

import omnipoll

theirs = pytest.importorskip("test.test_selectors", reason="this Python comes without its tests")

# The mixins exist at run time only, as far as a type checker knows.
Standard = theirs.BaseSelectorTestCase
Scalable = theirs.ScalableSelectorMixIn

patches_the_standard_class = unittest.skip(
    "replaces selectors.PollSelector's or selectors.EpollSelector's own poll object, by name"
)


class TestSelectSelector(Standard, Scalable, unittest.TestCase):  # type: ignore[misc,valid-type]
    SELECTOR = omnipoll.SelectSelector


class TestPollSelector(Standard, Scalable, unittest.TestCase):  # type: ignore[misc,valid-type]
    SELECTOR = omnipoll.PollSelector
    test_modify_unregister = patches_the_standard_class(Standard.test_modify_unregister)


class TestEpollSelector(Standard, Scalable, unittest.TestCase):  # type: ignore[misc,valid-type]
    SELECTOR = omnipoll.EpollSelector
    test_modify_unregister = patches_the_standard_class(Standard.test_modify_unregister)


@unittest.skipUnless(IO_URING, "io_uring is refused here")
class TestIoUringSelector(Standard, Scalable, unittest.TestCase):  # type: ignore[misc,valid-type]
    SELECTOR = omnipoll.IoUringSelector


class TestDefaultSelector(Standard, Scalable, unittest.TestCase):  # type: ignore[misc,valid-type]
    SELECTOR = omnipoll.DefaultSelector
