"""What goes to a model behind HTTP and what comes back, as pure functions: a module per form of the wire."""

from __future__ import annotations

from collections.abc import Callable

from contract.remote import Form as FormName
from contract.remote import RemoteModel
from runtime.remote.forms.chat import ChatForm
from runtime.remote.forms.decisions import DecisionsForm
from runtime.remote.forms.oip import OipForm
from runtime.remote.forms.said import Form

_FORMS: dict[FormName, Callable[[RemoteModel, tuple[str, ...]], Form]] = {
    "decisions": DecisionsForm,
    "chat": ChatForm,
    "oip": OipForm,
}


def form_of(model: RemoteModel, labels: tuple[str, ...]) -> Form:
    """Return how a model is asked for one of `labels`.

    Raises:
        InputError: the record does not fit the labels, or the form cannot ask for so many.
    """
    return _FORMS[model.form](model, labels)
