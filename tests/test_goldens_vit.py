"""Every array of the published ViT explainers is reproduced (tests/goldens/vit)."""

import numpy as np
import pytest
import torch
from small_vits import golden, golden_model, relative_error

import xai_lib as xai
from xai_lib.explainers.lrp import rule_set
from xai_lib.passes.call import Call
from xai_lib.streams.prepare import prepare

pytestmark = pytest.mark.usefixtures("one_thread")

FILES = ("vit_a_seed0", "vit_b_seed0", "vit_d_seed0", "vit_e_seed0")
DISTILLED = "vit_c_distilled_seed0"
LAYERS = {"ourlayers": {}, "origlayers": {"rules": "zplus_split"}, "ourlayers_alpha2": {"alpha": 2}}


def golden_cases():
    """Return {golden key: (method, options)}."""
    cases = {
        "attn_last_layer/raw": ("raw_attention", {}),
        "generic_attention/default": ("generic_attention", {}),
    }
    for start in (0, 1):
        options = {"start_layer": start}
        for method in ("transformer_attribution", "lrp_rollout"):
            cases[f"{method}/start{start}"] = method, options
            cases[f"{method}/start{start}_origlayers"] = method, options | LAYERS["origlayers"]
            cases[f"{method}/start{start}_alpha2"] = method, options | {"alpha": 2}
        for suffix in ("", "_mae"):
            cases[f"rollout{suffix}/start{start}"] = "rollout", options
    for layers, options in LAYERS.items():
        cases[f"full_lrp/{layers}"] = "lrp", options
        for layer, name in ((-1, "last"), (1, "second")):
            one = options | {"layer": layer}
            cases[f"lrp_{name}_layer/{layers}"] = "partial_lrp", one
            cases[f"lrp_{name}_layer/{layers}_ablation"] = "partial_lrp", one | {"gradient": True}
    for steps in (5, 20):
        options = {"steps": steps, "compat": "reference"}
        cases[f"ig_patched_hook/steps{steps}"] = "integrated_gradients", options
    for suffix in ("", "_mae"):
        cases[f"attn_gradcam{suffix}/default"] = "attn_gradcam", {"compat": "reference"}
        cases[f"attn_minmax{suffix}/default"] = "raw_attention", {"compat": "reference"}
        # Beyond Intuition counts its start layers from 1.
        for start in (1, 2):
            options = {"start_layer": start - 1, "clamp_after_mean": True}
            cases[f"genattr{suffix}/start{start}"] = "generic_attention", options
        for start in (1, 2, 4, 6, 7):
            options = {"start_layer": start - 1, "compat": "reference"}
            for key, method in ((f"ours{suffix}", "bi_head"), (f"ours_c{suffix}", "bi_token")):
                cases[f"{key}/start{start}_ssl"] = method, options | {"feedback": "none"}
                for steps in (5, 20):
                    cases[f"{key}/start{start}_steps{steps}"] = method, options | {"steps": steps}
    return cases


CASES = golden_cases()
PRESENT = [
    pytest.param(name, key[4:], id=f"{name[4]}-{key[4:]}")
    for name in FILES
    for key in golden(name)
    if key.startswith("out/")
]


def is_lrp(key):
    return "lrp" in key or "transformer_attribution" in key


def explain_as_golden(name, key, dtype):
    """Return our array and the golden one, both (inputs · targets, values)."""
    method, options = CASES[key]
    model, inputs, targets = golden_model(name, dtype)
    found = xai.explain(model, inputs, method, targets=list(targets), **options)
    expected = torch.from_numpy(golden(name)[f"out/{key}"]).transpose(0, 1)
    values = found.pixels if expected.dim() == 4 else found.relevance[..., found.layout.prefix :]
    return values.flatten(2).flatten(0, 1), expected.flatten(2).flatten(0, 1)


@pytest.mark.parametrize(("name", "key"), PRESENT)
def test_published_output_in_float64(name, key):
    found, expected = explain_as_golden(name, key, torch.float64)
    assert torch.equal(found.isnan(), expected.isnan())
    error = relative_error(found.nan_to_num(), expected.nan_to_num())
    assert error.max() <= (1e-6 if is_lrp(key) else 1e-9)


@pytest.mark.parametrize(("name", "key"), PRESENT)
@pytest.mark.slow
def test_published_output_in_float32(name, key):
    found, expected = explain_as_golden(name, key, torch.float32)
    defined = ~expected.isnan().any(1)
    error = relative_error(found[defined], expected[defined])
    published = torch.from_numpy(golden(name)[f"f32err/{key}"]).t().flatten()[defined]
    # The published error of one map is one draw of rounding, and kernels of another processor draw
    # anew: how large a draw can be is told by the largest of the key's maps.
    assert error.max() <= max(4 * float(published.max()), 1e-5), (error, published)


def test_every_golden_file_and_every_case_is_used():
    keys = {key[4:] for name in FILES for key in golden(name) if key.startswith("out/")}
    assert keys <= set(CASES)
    assert len(PRESENT) == 159


@pytest.mark.parametrize("name", [*FILES, DISTILLED])
def test_logits(name):
    model, inputs, _ = golden_model(name)
    logits = xai.explain(model, inputs, "rollout").logits
    np.testing.assert_allclose(logits, golden(name)["logits"], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "steps"),
    [(n, s) for n in FILES for s in (5, 20) if f"derived/ig_mean_grad/steps{s}" in golden(n)],
)
def test_mean_gradient_along_the_path(name, steps):
    model, inputs, targets = golden_model(name)
    gradients = [
        xai.explain(model, inputs * a, "gradient", targets=list(targets), reduce="sum").pixels
        for a in np.linspace(0, 1, steps)
    ]
    expected = torch.from_numpy(golden(name)[f"derived/ig_mean_grad/steps{steps}"]).transpose(0, 1)
    found = torch.stack(gradients).mean(0)
    assert relative_error(found.flatten(0, 1), expected.flatten(0, 1)).max() <= 1e-9


def distilled_cases():
    """Return {derived key: (method, options)}; Beyond Intuition counts its start layers from 1."""
    cases = {
        "attn_last": ("raw_attention", {}),
        "generic_attention_R/default": ("generic_attention", {}),
    }
    for start in (0, 1):
        cases[f"rollout_R/start{start}"] = "rollout", {"start_layer": start}
        options = {"start_layer": start, "clamp_after_mean": True}
        cases[f"genattr_R/start{start + 1}"] = "generic_attention", options
        for key, method in (("ours", "bi_head"), ("ours_c", "bi_token")):
            options = {"start_layer": start}
            cases[f"{key}_R/start{start + 1}"] = method, options | {"feedback": "none"}
            cases[f"{key}_WR/start{start + 1}_steps20"] = method, options
    return cases


DISTILLED_CASES = distilled_cases()


def distilled_row(case, row):
    """Return one row (targets, batch, 18) of a method's matrix; None is the model's own readout."""
    method, options = case
    model, inputs, targets = golden_model(DISTILLED)
    found = xai.explain(model, inputs, method, targets=list(targets), readout=row, **options)
    return found.relevance


@pytest.mark.slow
@pytest.mark.parametrize("key", DISTILLED_CASES)
def test_distilled_matrix_row_by_row(key):
    expected = torch.from_numpy(golden(DISTILLED)[f"derived/{key}"]).transpose(0, 1)
    rows = range(2) if "WR" in key else range(18)
    found = torch.stack([distilled_row(DISTILLED_CASES[key], row) for row in rows], 2)
    expected = expected[..., : len(rows), :]
    error = relative_error(found.flatten(0, 1), expected.flatten(0, 1))
    assert error.max() <= 1e-9


@pytest.mark.parametrize("key", DISTILLED_CASES)
def test_distilled_readout_is_found_and_averages_both_tokens(key):
    expected = torch.from_numpy(golden(DISTILLED)[f"derived/{key}"]).transpose(0, 1)[..., :2, :]
    found = distilled_row(DISTILLED_CASES[key], None)
    error = relative_error(found.flatten(0, 1), expected.mean(2).flatten(0, 1))
    assert error.max() <= 1e-9


@pytest.mark.parametrize("row", (0, 1))
def test_distilled_gradcam(row):
    expected = torch.from_numpy(golden(DISTILLED)[f"derived/attn_gradcam/row{row}"])
    found = distilled_row(("attn_gradcam", {"compat": "reference"}), row)[..., 2:]
    expected = expected.transpose(0, 1).flatten(0, 1)
    found = found.flatten(0, 1)
    assert torch.equal(found.isnan(), expected.isnan())
    assert relative_error(found.nan_to_num(), expected.nan_to_num()).max() <= 1e-9


@pytest.mark.parametrize("row", (0, 1))
def test_distilled_feedback_factor(row):
    expected = torch.from_numpy(golden(DISTILLED)["derived/ig_last_attn_W/steps20"])
    both = distilled_row(DISTILLED_CASES["ours_WR/start1_steps20"], row)
    factor = both / distilled_row(DISTILLED_CASES["ours_R/start1"], row)
    error = relative_error(
        factor.flatten(0, 1), expected.transpose(0, 1)[..., row, :].flatten(0, 1)
    )
    assert error.max() <= 1e-9


def test_every_derived_array_is_used():
    used = {
        *DISTILLED_CASES,
        *(f"attn_gradcam/row{row}" for row in (0, 1)),
        "ig_last_attn_W/steps20",
    }
    used = {f"derived/{key}" for key in used}
    assert used == {key for key in golden(DISTILLED) if key.startswith("derived/")}


VARIANTS = {"ours": {}, "origlayers": LAYERS["origlayers"], "ours_alpha2": {"alpha": 2}}
TRACES = [
    pytest.param(name, variant, number, id=f"{name[4]}-{variant}-{number}")
    for name in ("vit_a_seed0", "vit_b_seed0", "vit_d_seed0")
    for variant, numbers in (("ours", (0, 1)), ("origlayers", (0,)), ("ours_alpha2", (0,)))
    for number in numbers
]


class ModuleTensors:
    """What every module of a model takes and returns in one forward pass, by its path."""

    def __init__(self, model):
        self.inputs, self.outputs = {}, {}
        self.handles = [
            module.register_forward_hook(self._keep(name)) for name, module in model.named_modules()
        ]

    def _keep(self, name):
        def hook(module, args, output):
            self.inputs[name], self.outputs[name] = args[0], output

        return hook

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for handle in self.handles:
            handle.remove()


def traced(name, variant):
    """Return model, run and module tensors of a golden trace's forward pass (its first input)."""
    model, inputs, _ = golden_model(name)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is model.pos_embed or parameter is model.cls_token)
    target = torch.from_numpy(golden(f"{name}_trace")["target"]).unsqueeze(1)
    call = Call(model, prepare(model, inputs[:1]), lambda logits: target)
    options = {"rules": "zplus", "alpha": 1.0} | VARIANTS[variant]
    with ModuleTensors(model) as tensors:
        run = call.forward(call.inputs.focus.data.requires_grad_(), rules=rule_set(call, **options))
    return model, call, run, tensors


def close(found, expected, tolerance=1e-6):
    expected = torch.as_tensor(expected)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(("name", "variant", "number"), TRACES)
def test_attention_its_gradient_and_its_relevance(name, variant, number):
    _, call, run, _ = traced(name, variant)
    trace = golden(f"{name}_trace")
    seed = call.seed(call.targets[number], run.logits)
    probs = [site.probs for site in run.sites]
    close(torch.cat(probs).detach(), trace["attn"], 1e-9)
    close(torch.cat(run.gradients(probs, seed)), trace["attn_grad_ours"][number], 1e-9)
    close(torch.cat(run.relevances(probs, seed)), trace[f"attn_cam_{variant}"][number])


@pytest.mark.parametrize(("name", "variant", "number"), TRACES)
def test_relevance_at_head_norm_blocks_and_position_embedding(name, variant, number):
    model, call, run, tensors = traced(name, variant)
    trace = {
        key.rsplit("/", 1)[1]: value
        for key, value in golden(f"{name}_trace").items()
        if key.startswith(f"relprop_{variant}/{number}/")
    }
    wanted = {
        "head": tensors.inputs["head"],
        "norm": tensors.outputs["norm"],
        "before_norm": tensors.inputs["norm"],
        **{f"block{i}": tensors.inputs[f"blocks.{i}"] for i in range(len(model.blocks))},
        "patches": tensors.outputs["patch_embed"],
        "cls": model.cls_token,
        "pos": model.pos_embed,
    }
    seed = call.seed(call.targets[number], run.logits)
    found = dict(zip(wanted, run.relevances(list(wanted.values()), seed), strict=True))
    blocks = [found[f"block{i}"][0] for i in range(len(model.blocks))]
    close(found["head"][0], trace["head"])
    close(found["norm"][0, 0], trace["pool"])
    close(found["before_norm"][0, 0], trace["norm_row0"])
    assert not found["norm"][0, 1:].any() and not found["before_norm"][0, 1:].any()
    for block, expected in zip(blocks, trace["blocks"], strict=True):
        close(block, expected)
    close(torch.cat([found["cls"][0], found["patches"][0]]), trace["posadd_x"])
    close(found["pos"][0], trace["posadd_pos"])
    totals = [found["head"].sum(), found["norm"].sum(), *(b.sum() for b in blocks[::-1])]
    np.testing.assert_allclose(totals, trace["sums"], rtol=1e-6)


def module_relevances(r):
    """Return the golden file's names of a block's sub-modules with our tensors' relevance."""
    # A sum's share to its skip connection is what its operand has beyond the branch's share.
    return {
        "add2/0": r["mid"] - r["norm2.out"],
        "add2/1": r["mlp.out"],
        "mlp.drop": r["mlp.fc2.out"],
        "mlp.fc2": r["mlp.fc2.in"],
        "mlp.act": r["mlp.act.in"],
        "mlp.fc1": r["mlp.fc1.in"],
        "mlp": r["mlp.in"],
        "norm2": r["norm2.out"],
        "clone2": r["mid"],
        "add1/0": r["in"] - r["norm1.out"],
        "add1/1": r["attn.out"],
        "attn.proj_drop": r["attn.proj.out"],
        "attn.proj": r["attn.proj.in"],
        "attn.matmul2/0": r["probs"],
        "attn.matmul2/1": r["value"],
        "attn.attn_drop": r["probs"],
        "attn.softmax": r["probs"],
        "attn.matmul1/0": r["attn.q_norm.out"],
        "attn.matmul1/1": r["attn.k_norm.out"],
        "attn.qkv": r["attn.qkv.in"],
        "attn": r["attn.in"],
        "norm1": r["norm1.out"],
        "clone1": r["in"],
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block", range(3))
def test_relevance_at_every_submodule(variant, block):
    _, call, run, tensors = traced("vit_a_seed0", variant)
    path = f"blocks.{block}"
    site = run.sites[block]
    wanted = {"in": tensors.inputs[path], "mid": tensors.inputs[f"{path}.norm2"]}
    wanted |= {"probs": site.probs, "value": site.value}
    for name in tensors.outputs:
        if name.startswith(f"{path}."):
            short = name.removeprefix(f"{path}.")
            wanted[f"{short}.in"] = tensors.inputs[name]
            wanted[f"{short}.out"] = tensors.outputs[name]
    seed = call.seed(call.targets[0], run.logits)
    found = run.relevances(list(wanted.values()), seed)
    relevance = {name: r[0] for name, r in zip(wanted, found, strict=True)}
    named = module_relevances(relevance)
    expected = {
        key.removeprefix(f"detail_{variant}/{path}."): value
        for key, value in golden("vit_a_seed0_trace").items()
        if key.startswith(f"detail_{variant}/{path}.")
    }
    for name, value in expected.items():
        scale = 2 if "matmul" in name else 1  # recorded before the halving
        assert named[name].shape == value.shape, name
        error = (named[name] * scale - torch.from_numpy(value)).abs().max() / np.abs(value).max()
        assert error <= 1e-6, (name, error)
    assert set(named) - set(expected) <= {"clone2"}
