"""The model that a config's `model` section describes, and the check of what it names."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bahdanau_jax.errors import InputError, one_line
from bahdanau_jax.import_path import accepted, load_object
from bahdanau_jax.models.ngrams import NgramClassifier
from bahdanau_jax.models.with_ngrams import WithNgrams

_BATCH, _TIME, _VOCABULARY = 3, 8, 50  # of the trial call; three rows are no pair of results


def build_classifier(
    fields: Mapping[str, Any], vocab_size: int, num_classes: int, *, rngs: nnx.Rngs
) -> Any:
    """Makes a classifier with fresh weights.

    A classifier is an nnx.Module. It is constructed as `Classifier(vocab_size, num_classes, *, rngs, ...)`
    with those of the other fields that its parameters name, and with `fields["options"]`. It is called as
    `model(ids, mask=None) -> logits, weights`: ids int32 [batch, time] (0 is padding), logits float32
    [batch, 1] for two classes, otherwise [batch, num_classes], weights [batch, time]. In training mode it may
    use dropout. If it offers `embed(ids)` and takes `embedded=`, the report compares its attention with
    gradients. If it offers `for_prediction(*, products)`, as `AttentionClassifier` does, what that returns
    predicts in its place. If its `language_model` is a `LanguageModelStates`, `config.language_model` may name
    the run whose weights these get. If it offers `fit_before_training(texts, unlabelled)`, as `WithNgrams`
    does, it is called once before the first step.

    Args:
      fields: the config's `model` section.
      vocab_size: number of ids.
      num_classes: number of classes.
      rngs: streams `params` and `dropout`.

    Raises:
      InputError: `target` or `attention` cannot be imported, or does not take these arguments.

    Example:
      >>> from flax import nnx
      >>> fields = dict(target="bahdanau_jax:AttentionClassifier", hidden_features=4, ngrams=0)
      >>> build_classifier(fields, 10, 2, rngs=nnx.Rngs(0)).encoder[0].forward.bias.shape
      (16,)
    """
    given = dict(fields)
    ngrams = dict(
        n=given.pop("ngrams", 0),
        rows=given.pop("ngram_rows", 1),
        gaps=given.pop("ngram_gaps", False),
        ending=given.pop("ngram_ending", False),
        keyed=given.pop("ngram_keyed", False),
    )
    names = "ngram_share", "fit_blend", "ngram_vectors"
    blend = {name: given.pop(name) for name in names if name in given}
    target, options = given.pop("target"), dict(given.pop("options", {}))
    constructor = load_object(target, "config.model.target")
    if "attention" in given:
        given["attention"] = load_object(given["attention"], "config.model.attention")
    given |= dict(vocab_size=vocab_size, num_classes=num_classes, rngs=rngs)
    try:
        network = constructor(**accepted(constructor, given, "config.model.target", options))
    except InputError:
        raise
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"config.model: {target} cannot be made ({type(error).__name__}: {one_line(error)[:300]}); "
            "expected a class that takes these fields, and an attention that takes "
            "(query_features, key_features, units, *, rngs)"
        ) from error
    if not ngrams["n"]:
        return network
    return WithNgrams(network, NgramClassifier(**ngrams, num_classes=num_classes), **blend)


def check_classifier(fields: Mapping[str, Any], num_classes: int = 2) -> None:
    """Tries the model on an abstract batch, without computing anything.

    Raises:
      InputError: the classifier or the attention cannot be imported, does not take its arguments, or returns
        other shapes than promised; in one line that names the field.
    """
    outputs = 1 if num_classes == 2 else num_classes

    def trial(ids: jax.Array) -> Any:
        model = build_classifier(fields, _VOCABULARY, num_classes, rngs=nnx.Rngs(0))
        return model(ids)

    expected = (
        f"logits of shape ({_BATCH}, {outputs}) and weights of shape ({_BATCH}, {_TIME})"
        f" for ids of shape ({_BATCH}, {_TIME})"
    )
    name = f"{fields['target']} with {fields['attention']}"
    try:
        returned = jax.eval_shape(trial, jax.ShapeDtypeStruct((_BATCH, _TIME), jnp.int32))
    except InputError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise InputError(
            f"config.model: {name} fails on a trial batch ({type(error).__name__}: {one_line(error)[:300]}); "
            f"expected {expected}"
        ) from error
    if not isinstance(returned, tuple):
        shapes: Any = type(returned).__name__
    else:
        shapes = [getattr(x, "shape", None) for x in returned]
    if shapes != [(_BATCH, outputs), (_BATCH, _TIME)]:
        raise InputError(f"config.model: {name} returns {shapes}; expected {expected}")
