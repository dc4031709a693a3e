"""A GGUF file as a transformers model in f32, and its vocabulary as a Hugging Face tokenizer.

The weights are dequantised by the gguf package; rows of q and k of `llama` files are put back from
neighbours (2i, 2i + 1) to halves (i, i + d/2). Nothing of the engine is used.
"""
import gguf
import numpy as np
import tokenizers
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

LAYER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj"}
WHOLE = {"token_embd.weight": "model.embed_tokens.weight",
         "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}


def unpermute(w, n_heads):
    half = w.shape[0] // n_heads // 2
    rows = [h * 2 * half + 2 * i + part
            for h in range(n_heads) for part in (0, 1) for i in range(half)]
    return w[rows]


def field(reader, key, default=None):
    f = reader.get_field(key)
    return default if f is None else f.contents()


def hf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, layer, module, kind = name.split(".")
    return f"model.layers.{layer}.{LAYER[module]}.{kind}"


def load_model(path):
    """An eval-mode model in f32. Llama 3.1's rope factors, if any, go straight into its table."""
    r = gguf.GGUFReader(path)
    arch = field(r, "general.architecture")
    if arch not in ("llama", "qwen2"):
        raise ValueError(f"{path}: architecture {arch}")

    def hp(key, default=None):
        return field(r, f"{arch}.{key}", default)

    heads, kv = hp("attention.head_count"), hp("attention.head_count_kv")
    weights, factors = {}, None
    for t in r.tensors:
        w = torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32))
        w = w.reshape(tuple(int(n) for n in reversed(t.shape)))
        if t.name == "rope_freqs.weight":
            factors = w
            continue
        if arch == "llama" and ".attn_q." in t.name:
            w = unpermute(w, heads)
        if arch == "llama" and ".attn_k." in t.name:
            w = unpermute(w, kv)
        weights[hf_name(t.name)] = w

    config = dict(
        vocab_size=weights["model.embed_tokens.weight"].shape[0],
        hidden_size=hp("embedding_length"), intermediate_size=hp("feed_forward_length"),
        num_hidden_layers=hp("block_count"), num_attention_heads=heads, num_key_value_heads=kv,
        rms_norm_eps=hp("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=hp("context_length"),
        tie_word_embeddings="lm_head.weight" not in weights,
        rope_parameters=dict(rope_type="default", rope_theta=hp("rope.freq_base", 10000.0)))
    model = (LlamaForCausalLM(LlamaConfig(**config)) if arch == "llama"
             else Qwen2ForCausalLM(Qwen2Config(**config)))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{path}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    if factors is not None:
        model.model.rotary_emb.inv_freq /= factors
    return model.to(torch.float32).eval()


def load_tokenizer(path):
    """Byte-level BPE as SmolLM2's tokenizer.json has it; special tokens in a text are plain text."""
    r = gguf.GGUFReader(path)
    if field(r, "tokenizer.ggml.pre") != "smollm":
        raise ValueError(f"{path}: only SmolLM2's pre-tokenizer is known here")
    tokens = field(r, "tokenizer.ggml.tokens")
    merges = [tuple(m.split(" ")) for m in field(r, "tokenizer.ggml.merges")]
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    return tok


def versions():
    import transformers
    return (f"torch {torch.__version__}, transformers {transformers.__version__}, "
            f"tokenizers {tokenizers.__version__}, numpy {np.__version__}")
