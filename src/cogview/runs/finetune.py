"""Training run of a finetune, common to all tasks."""

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cogview.data.ranks import Ranks
from cogview.data.shards import TokenShards
from cogview.errors import UsageError
from cogview.models.adapters import find_adapter_folder, load_task_model, save_task_model
from cogview.models.config import DRAWING_TASKS, TaskName, read_adapter_config
from cogview.models.pretrained import PretrainedModel, TaskModel, fields_of
from cogview.models.weights import fingerprint_of_transformer
from cogview.recipes.config import FinetuneRecipe
from cogview.runs.text_case import refuse_capitals
from cogview.runs.training import DryRunResult, TrainingResult, carry_out
from cogview.runs.training_options import FinetuneOptions
from cogview.sequence.right_text import RightTextTemplate
from cogview.text.known_words import KnownWords
from cogview.training.progress import say
from cogview.training.transformer import Batches, TransformerTask
from cogview.transformer.adapter import POSITIONS, AdaptedTransformer, first_positions, lengthen_text
from cogview.transformer.model import Transformer

TOKEN_ROWS = ("embedding.tokens.rows", "own_head.rows", "own_head.row_biases")
"""Name of an adapter's own embedding rows among its tensors."""


def open_tokens(model: PretrainedModel, folder: Path) -> TokenShards:
    """Open tokens that a model's tokenizers made.

    Raises:
        CogViewError: they are missing, damaged, or of other tokenizers.
        UsageError: captions have capitals, and the model reads lower case.
    """
    shards = TokenShards(
        folder, image_tokenizer=model.image_fingerprint, text_tokenizer=model.text_fingerprint
    )
    refuse_capitals(shards, model.text_case, model.text_tokenizer)
    return shards


def finetune(
    recipe: FinetuneRecipe,
    base: PretrainedModel,
    task: TaskName,
    batches: Batches,
    options: FinetuneOptions,
    *,
    positions: Float[Tensor, "p d"] | None = None,
    words: KnownWords | None = None,
    card: str,
    facts: Mapping[str, Any],
    sample: Callable[[TaskModel, Path], None],
    evaluate: Callable[[TaskModel], Mapping[str, Mapping[str, float]]] | None = None,
) -> TrainingResult | DryRunResult | None:
    """Train an adapter of a model, or a copy's full weights, and write `out/model` as `save_task_model` does.

    An adapter gets a position table of its own if the template has more positions than the base.

    Args:
        recipe: adapter and training.
        base: float32 model, frozen if an adapter is trained.
        task: what is learnt.
        batches: sequences of each step, in the order of the task's template, a dataclass.
        options: the files, the licence and the initial weights.
        positions: initial position table, if not the base's.
        words: words of the training texts, if known.
        card: of the result.
        facts: what else defines the run; a resume with other facts is refused.
        sample: writes a sample sheet of the current model to a path.
        evaluate: measures the trained model by held-out split.

    Returns:
        The result; None in all processes but the first.

    Raises:
        UsageError: several processes train an adapter, or the initial weights are of another task or shape.
    """
    template: Any = batches.template
    out, start_from = options.out, options.start_from
    assert template.vocabulary == base.template.vocabulary, "a task is learnt in the base's vocabulary"
    alone = Ranks.from_environment(os.environ).num_ranks == 1
    if not alone and recipe.adapter is not None:
        raise UsageError("an adapter is trained by one process: start it without torchrun")
    started = None if start_from is None else _started(task, find_adapter_folder(start_from), base)
    started_as = None
    if started is not None:
        started_as, words = started.transformer, words and started.words and started.words | words
    if recipe.adapter is not None and isinstance(started_as, AdaptedTransformer):
        # Words of the initial weights stay known.
        rows = tuple(dict.fromkeys((*started_as.adapter.token_rows, *recipe.adapter.token_rows)))
        recipe = dataclasses.replace(recipe, adapter=dataclasses.replace(recipe.adapter, token_rows=rows))
    transformer = new_transformer(recipe, base.transformer, template.num_positions, positions)
    if started is not None:
        _start_as(transformer, started, template, f"{start_from}")
    if recipe.attention is not None:
        transformer.compute_attention(recipe.attention)
    trained = TaskModel(
        task=task,
        transformer=transformer,
        template=fields_of(template),
        licence=options.licence,
        card=card,
        words=words,
    )
    return carry_out(
        TransformerTask(transformer if alone else copy.deepcopy(transformer), batches, recipe.token_loss),
        recipe.training,
        options,
        recipe={
            "task": task,
            "base": base.fingerprint,
            "adapter": transformer.adapter if isinstance(transformer, AdaptedTransformer) else None,
            "template": template,
            "token_loss": recipe.token_loss,
            "attention": recipe.attention,
            "licence": options.licence,
            "start_from": None
            if start_from is None
            else fingerprint_of_transformer(transformer.state_dict()),
            **facts,
        },
        sample=lambda num_steps: sample(trained, out / "samples" / f"step-{num_steps:08d}.png"),
        export=lambda folder: save_task_model(trained, folder, base),
        evaluate=None if evaluate is None else lambda: evaluate(trained),
        whole=None if alone else transformer,
    )


def check_base(
    base: PretrainedModel, task: TaskName, template: Any = None, kept_codes: int | None = None
) -> None:
    """Refuse a base whose sparse attention does not suit a task, before anything is trained.

    Args:
        base: to train further.
        task: to learn.
        template: of a caption, if that is the task.
        kept_codes: codes that sequences keep of a picture; all if None.

    Raises:
        UsageError: attention and task do not fit together.
    """
    pattern = base.config.attention_pattern
    is_drawing = task in DRAWING_TASKS or isinstance(template, RightTextTemplate)
    if pattern != "dense" and not is_drawing:
        raise UsageError(
            f"{task} needs dense attention, and this base's is {pattern}, for a text before a picture: take another "
            "base"
        )
    if pattern == "grid" and kept_codes is not None:
        raise UsageError(
            "this base's attention goes by the place of each code in the picture, so none can be left out: give "
            "--kept-codes None"
        )


def _started(task: TaskName, folder: Path, base: PretrainedModel) -> TaskModel:
    """Return the model of the initial weights, an adapter perhaps beside the weights of another base."""
    started = load_task_model(folder, base, any_base=True)
    if started.task != task:
        raise UsageError(f"{folder} has learnt {started.task}, not {task}: start from another")
    if (learnt_beside := read_adapter_config(folder).get("base", base.fingerprint)) != base.fingerprint:
        say(
            f"{folder} is an adapter of other weights ({learnt_beside}) than the base's ({base.fingerprint}): its own "
            "are where this training starts."
        )
    return started


def _start_as(transformer: Transformer, started: TaskModel, template: Any, name: str) -> None:
    """Load the initial weights into the transformer; if its texts are longer, the added positions stay new.

    Args:
        transformer: to load them into.
        started: the model of the initial weights.
        template: of the transformer's sequences.
        name: of the initial weights, in messages.

    Raises:
        UsageError: they are of another shape.
    """
    models = (started.transformer, transformer)
    shapes = [dict(vars(getattr(each, "adapter", None) or each.config)) for each in models]
    state, new = started.transformer.state_dict(), transformer.state_dict()
    before, fields = dict(started.template), fields_of(template)
    added = fields.get("max_text_pieces", 0) - before.get("max_text_pieces", 0)
    is_longer = added > 0 and before == fields | {"max_text_pieces": before.get("max_text_pieces")}
    if is_longer and POSITIONS in state.keys() & new.keys() and before.get("image_positions") == "fixed":
        state[POSITIONS] = lengthen_text(state[POSITIONS], new[POSITIONS], 1 + before["max_text_pieces"])
        shapes[0]["num_positions"] = shapes[1]["num_positions"]
    differing = [
        f"{field} is {shapes[0].get(field, 'absent')} there and {shapes[1].get(field, 'absent')} here"
        for field in {**shapes[0], **shapes[1]}
        if field != "token_rows" and shapes[0].get(field, ...) != shapes[1].get(field, ...)
    ]
    if differing:
        raise UsageError(f"{name} has another shape than the model to train: {'; '.join(differing)}")
    if isinstance(transformer, AdaptedTransformer) and transformer.adapter.token_rows:
        for name, new_rows in new.items():
            if name in TOKEN_ROWS:
                known_rows = state.get(name, new_rows[:0])
                state[name] = torch.cat([known_rows, new_rows[len(known_rows) :]])
    transformer.load_state_dict(state, strict=False)


def new_transformer(
    recipe: FinetuneRecipe,
    base: Transformer,
    num_positions: int,
    positions: Float[Tensor, "p d"] | None = None,
) -> Transformer:
    """Return an adapter beside the base's weights, or a copy of them, to train.

    Args:
        recipe: which of the two; its seed determines the adapter's random half.
        base: initial weights.
        num_positions: of the task's template.
        positions: initial position table; by default the base's, extended at random if too short.

    Raises:
        UsageError: the adapter has nothing to train.
    """
    is_too_short = num_positions > base.config.num_positions
    seed, adapter = recipe.training.seed, recipe.adapter
    if adapter is not None:
        if adapter.num_positions is None and (is_too_short or positions is not None):
            adapter = dataclasses.replace(adapter, num_positions=num_positions)
        if adapter.is_empty:
            raise UsageError(
                "an adapter without maps, norms, positions and tokens learns nothing: give it some"
            )
        return AdaptedTransformer(base, adapter, seed, positions)
    whole = copy.deepcopy(base)
    if is_too_short or positions is not None:
        whole.config = dataclasses.replace(base.config, num_positions=num_positions, position_table="learned")
        if positions is None:
            positions = first_positions(base, num_positions, torch.Generator().manual_seed(seed))
        whole.embedding.replace_positions(positions.clone())
    return whole.requires_grad_(True)
