#!/usr/bin/env python3
"""Makes the tiny random models of tests/data/ and what transformers says about them.

    python3 tests/reference/make_tiny.py tests/data

Writes tiny_NAME.gguf (F32) and tiny_NAME.ref (format: reffile.py) for each model below. Every
weight is random, norms and biases too, so that an error anywhere shows in the logits; embeddings
are small, so that the epsilon of the norms shows; queries and keys are large, so that attention is
sharp and a wrong position shows. The files follow the conventions of llama.cpp's converter: rows of
q and k of `llama` models permuted, Llama 3.1's rope scaling as a tensor of factors.

Needs torch, transformers, gguf, numpy. The weights depend on torch's generator, so another version
of torch may make other models: make all files together.
"""
import math
import os
import sys

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import reffile

N_VOCAB = 288
N_TOKENS = 256
ROW_STEP = 15          # logits after every 15th token: positions of every place in a page of 16

SMOLLM_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}")
QWEN2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA3_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
          "<|eot_id|>"]

# Common pairs of English, in the byte-level alphabet (G-with-dot is the space).
MERGES = ["\u0120 t", "h e", "\u0120 a", "i n", "r e", "\u0120t he", "o n", "e r", "\u0120 s",
          "a t", "\u0120 w", "\u0120 o", "e n", "\u0120 c", "i t", "i s", "a n", "o r", "e s",
          "\u0120 b", "e d", "\u0120 f", "in g", "\u0120 p", "o u", "\u0120a n", "a l", "a r",
          "\u0120t o"]

# Sizes: rows are multiples of 32; head sizes 32, 16, 8 and 24; groups of 3, 3, 6 and 4 heads.
MODELS = {
    "llama31": dict(
        seed=31, arch="llama", pre="llama-bpe", special=LLAMA3, template=LLAMA3_TEMPLATE,
        bos=0, eos=4, add_bos=True, hidden=96, ff=128, layers=2, heads=3, kv=1, eps=1e-5,
        tied=False,
        # Wavelengths are 2 pi 1.78^i: three below 128/4, three up to 128, ten above, so each rule
        # of the scaling is used several times.
        rope=dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
                  high_freq_factor=4.0, original_max_position_embeddings=128)),
    "smollm2": dict(
        seed=2, arch="llama", pre="smollm", special=CHATML, template=SMOLLM_TEMPLATE,
        bos=1, eos=2, add_bos=False, hidden=96, ff=96, layers=2, heads=6, kv=2, eps=1e-5,
        tied=True, rope=dict(rope_type="default", rope_theta=100000.0)),
    "qwen2": dict(
        seed=20, arch="qwen2", pre="qwen2", special=CHATML, template=QWEN2_TEMPLATE,
        bos=0, eos=2, add_bos=False, hidden=96, ff=96, layers=2, heads=12, kv=2, eps=1e-6,
        tied=True, rope=dict(rope_type="default", rope_theta=1000000.0)),
    "qwen2_untied": dict(
        seed=21, arch="qwen2", pre="qwen2", special=CHATML, template=QWEN2_TEMPLATE,
        bos=0, eos=2, add_bos=False, hidden=96, ff=96, layers=2, heads=4, kv=1, eps=1e-6,
        tied=False, rope=dict(rope_type="default", rope_theta=1000000.0)),
}


def byte_alphabet():
    """GPT-2's byte-level alphabet: printable bytes are themselves, others come after U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [b for b in range(256) if b not in plain]
    table = {b: chr(b) for b in plain}
    table.update({b: chr(0x100 + i) for i, b in enumerate(other)})
    return [table[b] for b in plain + other]


def vocabulary(spec):
    """Tokens and their types. SmolLM2 has its special tokens first, the others last."""
    special = list(spec["special"])
    merged = [m.replace(" ", "") for m in MERGES]
    n_plain = 256 + min(len(merged), N_VOCAB - 256 - len(special))
    plain = (byte_alphabet() + merged)[:n_plain]
    special += [f"<|reserved_{i}|>" for i in range(N_VOCAB - n_plain - len(special))]
    first = spec["pre"] == "smollm"
    tokens = special + plain if first else plain + special
    kinds = {t: gguf.TokenType.CONTROL for t in special}
    types = [kinds.get(t, gguf.TokenType.NORMAL) for t in tokens]
    return tokens, types, MERGES[:n_plain - 256], 0 if first else n_plain


def build(spec):
    common = dict(
        vocab_size=N_VOCAB, hidden_size=spec["hidden"], intermediate_size=spec["ff"],
        num_hidden_layers=spec["layers"], num_attention_heads=spec["heads"],
        num_key_value_heads=spec["kv"], rms_norm_eps=spec["eps"], max_position_embeddings=2048,
        tie_word_embeddings=spec["tied"], rope_parameters=spec["rope"])
    if spec["arch"] == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(**common))
    model = model.to(torch.float32).eval()

    gen = torch.Generator().manual_seed(spec["seed"])
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=gen)
            if name.endswith("norm.weight"):
                # Tied logits come from the small embedding: the last norm makes up for it.
                by = 10.0 if name == "model.norm.weight" and spec["tied"] else 1.0
                p.copy_(by * (1 + 0.2 * noise))
            elif name.endswith("bias"):
                p.copy_(0.7 * noise)
            elif "embed_tokens" in name:
                p.copy_(0.03 * noise)
            else:
                gain = 1.4 if "q_proj" in name or "k_proj" in name else 1.0
                gain = 3.0 if "lm_head" in name else gain
                p.copy_(gain / math.sqrt(p.shape[1]) * noise)
    return model


def permute(w, n_heads):
    """Rows of a rotary weight from halves (i, i + d/2) to neighbours (2i, 2i + 1)."""
    half = w.shape[0] // n_heads // 2
    rows = [h * 2 * half + i + part * half
            for h in range(n_heads) for i in range(half) for part in (0, 1)]
    return w[rows]


def rope_factors(spec):
    """What llama.cpp divides each frequency by; by the rule of Llama 3.1's config."""
    rope, dim = spec["rope"], spec["hidden"] // spec["heads"]
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for i in range(0, dim, 2):
        wavelen = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        if wavelen < high:
            factors.append(1.0)
        elif wavelen > low:
            factors.append(rope["factor"])
        else:
            smooth = ((low * rope["low_freq_factor"] / wavelen - rope["low_freq_factor"])
                      / (rope["high_freq_factor"] - rope["low_freq_factor"]))
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    assert len(set(factors)) >= 4, "every rule of the scaling should matter"
    return np.array(factors, np.float32)


NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    whole = {"model.embed_tokens.weight": "token_embd.weight",
             "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def write_gguf(path, name, spec, model):
    w = gguf.GGUFWriter(path, spec["arch"])
    w.add_name(f"tiny random {name}")
    w.add_description("made by tests/reference/make_tiny.py; knows nothing")
    w.add_block_count(spec["layers"])
    w.add_context_length(2048)
    w.add_embedding_length(spec["hidden"])
    w.add_feed_forward_length(spec["ff"])
    w.add_head_count(spec["heads"])
    w.add_head_count_kv(spec["kv"])
    w.add_rope_freq_base(spec["rope"]["rope_theta"])
    w.add_layer_norm_rms_eps(spec["eps"])
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    if spec["arch"] == "llama":
        w.add_vocab_size(N_VOCAB)
        w.add_rope_dimension_count(spec["hidden"] // spec["heads"])

    tokens, types, merges, first_special = vocabulary(spec)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(spec["pre"])
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(first_special + spec["bos"])
    w.add_eos_token_id(first_special + spec["eos"])
    w.add_add_bos_token(spec["add_bos"])
    w.add_chat_template(spec["template"])

    if spec["rope"]["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", rope_factors(spec))
    for hf_name, p in model.named_parameters():
        data = p.detach()
        if spec["arch"] == "llama" and "q_proj" in hf_name:
            data = permute(data, spec["heads"])
        if spec["arch"] == "llama" and "k_proj" in hf_name:
            data = permute(data, spec["kv"])
        w.add_tensor(gguf_name(hf_name), np.ascontiguousarray(data.numpy()))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/data"
    torch.set_num_threads(1)           # sums in one order, whatever the machine
    for name, spec in MODELS.items():
        model = build(spec)
        write_gguf(os.path.join(out, f"tiny_{name}.gguf"), name, spec, model)
        gen = torch.Generator().manual_seed(1000 + spec["seed"])
        ids = torch.randint(0, N_VOCAB, (N_TOKENS,), generator=gen)
        with torch.no_grad():
            logits = model(ids[None]).logits[0]
            wide = model.double()(ids[None]).logits[0]
        lp = torch.log_softmax(logits.double(), -1)
        logprobs = np.full(N_TOKENS, np.nan, np.float32)
        logprobs[1:] = lp[torch.arange(N_TOKENS - 1), ids[1:]].numpy()
        pos = list(range(0, N_TOKENS, ROW_STEP)) + [N_TOKENS - 1] * ((N_TOKENS - 1) % ROW_STEP > 0)
        reffile.write(os.path.join(out, f"tiny_{name}.ref"), ids, logprobs, N_TOKENS, N_VOCAB, pos,
                      logits[pos].numpy())
        print(f"{name}: logits {logits.std():.2f} std, {logits.abs().max():.1f} max; "
              f"f32 from f64: {(logits - wide).abs().max():.1e} max; "
              f"nll {-np.nanmean(logprobs):.3f}")


if __name__ == "__main__":
    main()
