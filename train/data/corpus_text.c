/* train/data/corpus_text.c - text to ids. A conversation is one text between its special tokens:
 * pieces are put together before they are encoded, since two texts side by side can have other
 * tokens than one.
 */
#include "train/data/corpus_text.h"

#include "base/utf8.h"
#include "engine/text/chat.h"
#include "engine/text/chat_put.h"
#include "engine/text/vocab.h"
#include "train/data/corpus.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32 /* of a JSON line */

/* ids and loss are of the document at hand, and stay until the next one. */
struct corpus_text {
    struct vocab *vocab;
    struct vocab_encoder *encoder;
    struct chat *chat; /* NULL: the model has no template that we know */
    struct why no_chat;
    struct json_tokener *json;
    uint32_t eos, bos;
    size_t lost;
    uint32_t *ids;
    uint8_t *loss;
    size_t n, cap;
    char *plain; /* pieces of a conversation that are one text */
    size_t plain_len, plain_cap;
};

/* --- opening ---------------------------------------------------------------------------------- */

/* eos: what ends a document in training of base models; an instruct model's eos ends an answer, and
 * is taken when there is no other. */
static int find_marks(struct corpus_text *t, const struct gguf *g, struct why *why)
{
    static const char *const ends[] = { "<|endoftext|>", "<|end_of_text|>" };

    t->bos = vocab_add_bos(t->vocab) ? vocab_bos(t->vocab) : CORPUS_NONE;
    for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
        t->eos = vocab_find(t->vocab, ends[i], strlen(ends[i]));
        if (t->eos != VOCAB_NONE && vocab_is_special(t->vocab, t->eos))
            return 0;
    }
    if (gguf_get_u32(g, "tokenizer.ggml.eos_token_id", &t->eos) < 0 ||
        t->eos >= vocab_size(t->vocab))
        return why_set(why, -EINVAL, "%s: the tokenizer has no eos token", gguf_label(g));
    return 0;
}

/* g may be closed behind it. */
int corpus_text_open(const struct gguf *g, struct corpus_text **ret, struct why *why)
{
    struct corpus_text *t = calloc(1, sizeof(*t));
    int r = -ENOMEM;

    if (!t)
        return why_set(why, r, "%s: no memory", gguf_label(g));
    t->json = json_tokener_new_ex(DEPTH_MAX);
    if (t->json) {
        /* Strict: a line that other parsers would read in another way is refused. */
        json_tokener_set_flags(t->json, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
        r = vocab_open(g, &t->vocab, why);
    }
    if (r == 0)
        r = vocab_encoder_new(t->vocab, &t->encoder);
    if (r == 0)
        r = find_marks(t, g, why);
    if (r == 0) {
        /* Only a conversation needs it. */
        r = chat_open(g, &t->chat, &t->no_chat);
        if (r == -ENOENT || r == -ENOTSUP)
            r = 0;
    }
    if (r < 0) {
        corpus_text_close(t);
        return why_set(why, r, "%s: no memory for the tokenizer", gguf_label(g));
    }
    *ret = t;
    return 0;
}

void corpus_text_close(struct corpus_text *t)
{
    if (!t)
        return;
    if (t->json)
        json_tokener_free(t->json);
    chat_close(t->chat);
    vocab_encoder_free(t->encoder);
    vocab_close(t->vocab);
    free(t->ids);
    free(t->loss);
    free(t->plain);
    free(t);
}

/* For the corpus file's head. */
void corpus_text_marks(const struct corpus_text *t, uint32_t *ret_n_vocab, uint32_t *ret_eos,
                       uint32_t *ret_bos)
{
    *ret_n_vocab = vocab_size(t->vocab);
    *ret_eos = t->eos;
    *ret_bos = t->bos;
}

/* Of all documents so far. */
size_t corpus_text_lost(const struct corpus_text *t)
{
    return t->lost;
}

/* --- text to ids ------------------------------------------------------------------------------ */

/* ids grows before loss: cap is what both have. */
static int make_room(struct corpus_text *t, size_t more)
{
    size_t cap = t->cap ? t->cap : 4096;
    uint32_t *ids;
    uint8_t *loss;

    if (t->cap - t->n >= more)
        return 0;
    /* Doubles, from 4096 on. */
    while (cap - t->n < more)
        cap *= 2;
    ids = reallocarray(t->ids, cap, sizeof(*ids));
    if (!ids)
        return -ENOMEM;
    t->ids = ids;
    loss = realloc(t->loss, cap);
    if (!loss)
        return -ENOMEM;
    t->loss = loss;
    t->cap = cap;
    return 0;
}

/* 0 from vocab_encoder_next: there is more. */
static int encode(struct corpus_text *t, const char *text, size_t len, bool loss)
{
    size_t n;
    int r;

    if (len == 0)
        return 0;
    vocab_encoder_start(t->encoder, text, len, false);
    do {
        r = make_room(t, 4096);
        if (r == 0)
            r = vocab_encoder_next(t->encoder, t->ids + t->n, t->cap - t->n, &n);
        if (r < 0)
            return r;
        /* One flag a token: loss is of whole pieces. */
        memset(t->loss + t->n, loss, n);
        t->n += n;
    } while (r == 0);
    t->lost += vocab_encoder_lost(t->encoder);
    return 0;
}

/* A mark of the template's: no loss, but for an answer's end (render). */
static int add_id(struct corpus_text *t, uint32_t id)
{
    int r = make_room(t, 1);

    if (r < 0)
        return r;
    t->ids[t->n] = id;
    t->loss[t->n++] = 0;
    return 0;
}

/* Other errors have their sentence already. */
static int finish(struct corpus_text *t, int r, const char *where, struct corpus_ids *ret,
                  struct why *why)
{
    if (r == -ENOMEM)
        (void)why_set(why, r, "%s: no memory", where);
    else if (r == 0)
        *ret = (struct corpus_ids){ t->ids, t->loss, t->n };
    return r;
}

int corpus_text_plain(struct corpus_text *t, const char *text, size_t len, const char *where,
                      struct corpus_ids *ret, struct why *why)
{
    /* Encoders take any bytes: in a corpus others than UTF-8 are a mistake. */
    size_t good = utf8_span((const uint8_t *)text, len);

    if (good < len)
        return why_set(why, -EINVAL,
                       "%s: found byte 0x%02x at offset %zu, which is not UTF-8, expected text in "
                       "UTF-8",
                       where, (uint8_t)text[good], good);
    t->n = 0;
    return finish(t, encode(t, text, len, true), where, ret, why);
}

/* --- conversations ---------------------------------------------------------------------------- */

/* A prompt's: no loss. */
static int flush_plain(struct corpus_text *t)
{
    int r = encode(t, t->plain, t->plain_len, false);

    t->plain_len = 0;
    return r;
}

/* Called by the template for each piece, in order. */
static int emit(void *arg, const struct chat_piece *p)
{
    struct corpus_text *t = arg;
    uint32_t id;
    int r;

    if (p->special) {
        r = flush_plain(t);
        if (r < 0)
            return r;
        id = vocab_find(t->vocab, p->text, p->len);
        /* The vocabulary lacks a mark of the template. */
        if (id == VOCAB_NONE)
            return -ENOTSUP;
        /* Sampling puts the begin-of-text token before a sequence. */
        return t->n == 0 && id == t->bos ? 0 : add_id(t, id);
    }
    /* Until the next mark. */
    if (t->plain_cap - t->plain_len < p->len) {
        /* Twice, so that it seldom grows. */
        size_t cap = 2 * (t->plain_len + p->len);
        char *plain = realloc(t->plain, cap);

        if (!plain)
            return -ENOMEM;
        t->plain = plain;
        t->plain_cap = cap;
    }
    memcpy(t->plain + t->plain_len, p->text, p->len);
    t->plain_len += p->len;
    return 0;
}

/* Messages up to the next answer, and what opens that. */
static int render(struct corpus_text *t, const struct chat_message *msgs, size_t n, enum chat_at at,
                  bool open_answer)
{
    /* The first mark behind an answer is its end. */
    size_t first = t->n;
    int r = chat_render(t->chat, msgs, n, at, open_answer, emit, t);

    if (r == 0)
        r = flush_plain(t);
    if (r == 0 && at == CHAT_AT_OPEN_TURN && t->n > first)
        t->loss[first] = 1; /* the end of the answer before */
    return r;
}

static int take_answer(void *arg, const struct chat_piece *p)
{
    return encode(arg, p->text, p->len, true);
}

/* As the template writes it where it is a message before the last: Llama 3's takes spaces away
 * around a message's text, those of Unicode too. */
static int encode_answer(struct corpus_text *t, const struct chat_message *m)
{
    struct chat_out o = { take_answer, t, 0 };

    if (chat_family(t->chat) == CHAT_LLAMA3)
        chat_put_trimmed(&o, m->text, m->text_len);
    else
        chat_put_piece(&o, m->text, m->text_len, false);
    return o.r;
}

/* Only answers carry loss, and the mark that ends each: render begins with it. */
static int encode_messages(struct corpus_text *t, const struct chat_message *msgs, size_t n)
{
    enum chat_at at = CHAT_AT_START;
    size_t from = 0;
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++) {
        /* Others wait until the next answer, and are rendered with what opens it. */
        if (strcmp(msgs[i].role, "assistant") != 0)
            continue;
        r = render(t, msgs + from, i - from, at, true);
        if (r == 0)
            r = encode_answer(t, &msgs[i]);
        at = CHAT_AT_OPEN_TURN;
        from = i + 1;
    }
    return r < 0 ? r : render(t, msgs + from, n - from, at, false);
}

/* --- lines of JSON ---------------------------------------------------------------------------- */

/* The strings are the object's. */
static bool get_string(struct json_object *o, const char *key, const char **ret, size_t *ret_len)
{
    struct json_object *v;

    if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
        return false;
    *ret = json_object_get_string(v);
    *ret_len = (size_t)json_object_get_string_len(v);
    return true;
}

static int line_messages(struct corpus_text *t, struct json_object *list, const char *where,
                         struct why *why)
{
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
    struct chat_message *msgs;
    size_t role_len;
    int r = 0;

    if (n == 0)
        return why_set(why, -EINVAL, "%s: \"messages\" is empty, expected at least one", where);
    if (!t->chat)
        return why_set(why, -EINVAL, "%s: found \"messages\", but %s", where, t->no_chat.text);
    /* Strings of the JSON object, which outlives them. */
    msgs = calloc(n, sizeof(*msgs));
    if (!msgs)
        return -ENOMEM;
    for (size_t i = 0; i < n && r == 0; i++) {
        struct json_object *m = json_object_array_get_idx(list, i);

        if (!json_object_is_type(m, json_type_object) ||
            !get_string(m, "role", &msgs[i].role, &role_len) ||
            !get_string(m, "content", &msgs[i].text, &msgs[i].text_len))
            r = why_set(why, -EINVAL,
                        "%s: message %zu has no \"role\" and \"content\" that are strings", where,
                        i + 1);
    }
    if (r == 0)
        r = encode_messages(t, msgs, n);
    /* The template's codes; a sentence that is there already stays (base/why.h). */
    if (r == -EINVAL || r == -ENOTSUP)
        (void)why_set(why, r, "%s: found a role that the model's chat template does not have",
                      where);
    free(msgs);
    return r;
}

static int line_segments(struct corpus_text *t, struct json_object *list, const char *where,
                         struct why *why)
{
    size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
    int r = 0;

    if (n == 0)
        return why_set(why, -EINVAL, "%s: \"segments\" is empty, expected at least one", where);
    for (size_t i = 0; i < n && r == 0; i++) {
        struct json_object *o = json_object_array_get_idx(list, i), *label;
        const char *text;
        size_t len;

        if (!json_object_is_type(o, json_type_object) || !get_string(o, "text", &text, &len) ||
            !json_object_object_get_ex(o, "label", &label) ||
            !json_object_is_type(label, json_type_boolean))
            return why_set(why, -EINVAL,
                           "%s: segment %zu has no \"text\" that is a string and \"label\" that is "
                           "true or false",
                           where, i + 1);
        /* Segments are encoded one by one: who writes them says where tokens end. */
        r = encode(t, text, len, json_object_get_boolean(label));
    }
    return r;
}

/* By the first key that it has. */
static int line_object(struct corpus_text *t, struct json_object *o, const char *where,
                       struct why *why)
{
    const char *text, *prompt;
    size_t len, prompt_len;
    struct json_object *list;
    int r;

    /* What the document before has left. */
    t->n = 0;
    t->plain_len = 0;
    if (get_string(o, "text", &text, &len))
        return encode(t, text, len, true);
    if (get_string(o, "prompt", &prompt, &prompt_len) && get_string(o, "completion", &text, &len)) {
        r = encode(t, prompt, prompt_len, false);
        return r < 0 ? r : encode(t, text, len, true);
    }
    if (json_object_object_get_ex(o, "messages", &list))
        return line_messages(t, list, where, why);
    if (json_object_object_get_ex(o, "segments", &list))
        return line_segments(t, list, where, why);
    return why_set(why, -EINVAL,
                   "%s: found none of \"text\", \"messages\", \"segments\", \"prompt\" with "
                   "\"completion\"",
                   where);
}

int corpus_text_line(struct corpus_text *t, const char *line, size_t len, const char *where,
                     struct corpus_ids *ret, struct why *why)
{
    struct json_object *o;
    enum json_tokener_error error;
    size_t end;
    int r;

    /* json-c counts in int. */
    if (len >= INT_MAX)
        return why_set(why, -EINVAL, "%s: a line of %zu bytes; at most %d are allowed", where, len,
                       INT_MAX - 1);
    /* A line that was wrong leaves it in the middle. */
    json_tokener_reset(t->json);
    o = json_tokener_parse_ex(t->json, line, (int)len);
    error = json_tokener_get_error(t->json);
    /* One object and nothing behind it. */
    end = json_tokener_get_parse_end(t->json);
    if (error == json_tokener_success && json_object_is_type(o, json_type_object) && end == len)
        r = line_object(t, o, where, why);
    else if (error == json_tokener_error_parse_utf8_string)
        r = why_set(why, -EINVAL, "%s: found bytes that are not UTF-8, expected text in UTF-8",
                    where);
    else
        r = why_set(
            why, -EINVAL, "%s: found no JSON object (%s at byte %zu), expected one a line", where,
            error == json_tokener_success ? "another value" : json_tokener_error_desc(error), end);
    (void)json_object_put(o);
    return finish(t, r, where, ret, why);
}
