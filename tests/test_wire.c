/* Would catch: a field that is lost or changed on its way through protobuf, a limit of ipc/wire.h
 * that is not held, and a frame from a hostile peer that is believed, or that leads outside of
 * memory. */
#include "gistd.pb-c.h"
#include "ipc/chan.h"
#include "ipc/wire.h"
#include "tests/support/hostile.h"
#include "tests/support/wire_sample.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct wire_scratch out, in;
static uint8_t buf[CHAN_FRAME_MAX];

static int open_scratch(void **state)
{
    (void)state;
    return wire_scratch_open(&out, WIRE_SCRATCH_BYTES) | wire_scratch_open(&in, WIRE_SCRATCH_BYTES);
}

static int close_scratch(void **state)
{
    (void)state;
    wire_scratch_close(&out);
    wire_scratch_close(&in);
    wire_scratch_close(NULL);
    return 0;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_every_request_comes_back(void **state)
{
    struct wire_req got;
    size_t len, size;

    (void)state;
    for (int k = 0; k < WIRE_REQ__N; k++) {
        struct wire_req r = sample_req((enum wire_req_kind)k);

        if (sample_no_req(k))
            continue;
        assert_int_equal(wire_req_pack(&out, &r, NULL, 0, &size), 0);
        assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
        assert_int_equal(len, size);
        assert_int_equal(wire_req_pack(&out, &r, buf, len - 1, &size), -EMSGSIZE);
        assert_int_equal(wire_req_unpack(&in, buf, len, &got), 0);
        sample_same_req(&r, &got);
    }
    assert_int_equal(
        wire_req_pack(&out, &(struct wire_req){ .kind = WIRE_REQ__N }, buf, sizeof(buf), &len),
        -EBADMSG);
}

static void test_every_reply_comes_back(void **state)
{
    struct wire_rep got;
    size_t len, size;

    (void)state;
    for (int k = 0; k < WIRE_REP__N; k++) {
        struct wire_rep r = sample_rep((enum wire_rep_kind)k);

        if (sample_no_rep(k))
            continue;
        assert_int_equal(wire_rep_pack(&out, &r, NULL, 0, &size), 0);
        assert_int_equal(wire_rep_pack(&out, &r, buf, sizeof(buf), &len), 0);
        assert_int_equal(len, size);
        assert_int_equal(wire_rep_unpack(&in, buf, len, &got), 0);
        sample_same_rep(&r, &got);
    }
    assert_int_equal(
        wire_rep_pack(&out, &(struct wire_rep){ .kind = WIRE_REP__N }, buf, sizeof(buf), &len),
        -EBADMSG);
}

/* Empty strings and NULL are one, and come back as "". */
static void test_unset_fields(void **state)
{
    struct wire_req r = { .kind = WIRE_OPEN_SESSION }, got;
    struct wire_rep rep = { .kind = WIRE_APPENDED }, got_rep;
    size_t len;

    (void)state;
    assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
    assert_int_equal(wire_req_unpack(&in, buf, len, &got), 0);
    assert_string_equal(got.u.open_session.label, "");
    assert_int_equal(wire_rep_pack(&out, &rep, buf, sizeof(buf), &len), 0);
    assert_int_equal(wire_rep_unpack(&in, buf, len, &got_rep), 0);
    assert_int_equal(got_rep.u.appended.usage.prompt_ns, 0);
    rep = (struct wire_rep){ .kind = WIRE_STATS }; /* of a daemon that keeps nothing on disk */
    assert_int_equal(wire_rep_pack(&out, &rep, buf, sizeof(buf), &len), 0);
    assert_int_equal(wire_rep_unpack(&in, buf, len, &got_rep), 0);
    assert_null(got_rep.u.stats.store);
    rep = (struct wire_rep){ .kind = WIRE_APPENDED };
    assert_int_equal(wire_rep_pack(&out, &rep, buf, sizeof(buf), &len), 0);
    assert_int_equal(wire_rep_unpack(&in, buf, len, &got_rep), 0);
    assert_false(got_rep.last);
    /* "Appended {}" without its usage, as another implementation may write it. */
    assert_int_equal(wire_rep_unpack(&in, (const uint8_t *)"\x62\x00", 2, &got_rep), 0);
    assert_int_equal(got_rep.kind, WIRE_APPENDED);
}

/* A frame that was cut anywhere is refused or is a shorter message; never read beyond its end,
 * which AddressSanitizer sees because the copy is exactly as long. */
static void test_cut_frames(void **state)
{
    struct wire_req req;
    struct wire_rep rep;
    size_t len;

    (void)state;
    for (int k = 0; k < WIRE_REQ__N + WIRE_REP__N; k++) {
        struct wire_req rq = sample_req((enum wire_req_kind)(k < WIRE_REQ__N ? k : 0));
        struct wire_rep rp =
            sample_rep((enum wire_rep_kind)(k < WIRE_REQ__N ? 0 : k - WIRE_REQ__N));

        if (k < WIRE_REQ__N ? sample_no_req(k) : sample_no_rep(k - WIRE_REQ__N))
            continue;
        if (k < WIRE_REQ__N)
            assert_int_equal(wire_req_pack(&out, &rq, buf, sizeof(buf), &len), 0);
        else
            assert_int_equal(wire_rep_pack(&out, &rp, buf, sizeof(buf), &len), 0);
        for (size_t cut = 0; cut < len; cut++) {
            uint8_t *copy = malloc(cut ? cut : 1);
            int r;

            memcpy(copy, buf, cut);
            r = k < WIRE_REQ__N ? wire_req_unpack(&in, copy, cut, &req)
                                : wire_rep_unpack(&in, copy, cut, &rep);
            /* The body is the last field: cut, it is broken or not there. */
            assert_int_equal(r, -EBADMSG);
            free(copy);
        }
    }
}

/* What an answer needs is there as soon as its bytes are, wherever the frame breaks off. */
static void test_heads(void **state)
{
    struct wire_req head;
    size_t len;

    (void)state;
    for (int k = 0; k < WIRE_REQ__N; k++) {
        struct wire_req r = sample_req((enum wire_req_kind)k);

        if (sample_no_req(k))
            continue;
        assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
        for (size_t cut = 0; cut <= len; cut++) {
            uint8_t *copy = malloc(cut ? cut : 1);

            memcpy(copy, buf, cut);
            wire_req_head(copy, cut, &head);
            assert_int_equal(head.id, cut >= 10 ? r.id : 0);
            assert_int_equal(head.bulk_len, cut >= 12 ? r.bulk_len : 0);
            assert_int_equal(head.kind, cut == len ? k : WIRE_REQ__N);
            free(copy);
        }
        if (k == WIRE_APPEND)
            assert_int_equal(head.u.append.session, r.u.append.session);
    }
    /* An id behind the body, a body of a later version, and neither. */
    wire_req_head((const uint8_t *)"\xc2\x3e\x01x\x08\x07", 6, &head);
    assert_int_equal(head.id, 7);
    assert_int_equal(head.kind, WIRE_REQ__N);
    wire_req_head((const uint8_t *)"\xff\xff", 2, &head);
    assert_int_equal(head.id, 0);
    /* A number between the bodies' that is in no use: what stood before it counts. */
    wire_req_head((const uint8_t *)"\xa2\x01\x00\xe2\x01\x00", 6, &head);
    assert_int_equal(head.kind, WIRE_PING);
}

/* A 0 that is meant comes back as one, and what was not said stays so; also what an older client
 * sends, which never writes a 0. */
static void test_zero_and_nothing(void **state)
{
    struct wire_req r = { .kind = WIRE_GENERATE }, got;
    size_t len;

    (void)state;
    assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
    assert_int_equal(wire_req_unpack(&in, buf, len, &got), 0);
    assert_false(got.u.generate.has_top_p || got.u.generate.has_repeat_penalty);
    r.u.generate.has_top_p = true;
    assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
    assert_int_equal(wire_req_unpack(&in, buf, len, &got), 0);
    assert_true(got.u.generate.has_top_p && got.u.generate.top_p == 0);
    assert_false(got.u.generate.has_repeat_penalty);
    /* OpenSession { segment: 64, memory { ratio: 16, sinks: 4294967295 } }: bytes of version 0.1.0
     */
    assert_int_equal(wire_req_unpack(&in,
                                     (const uint8_t *)"\x5a\x0c\x08\x40\x22\x08\x10\x10\x18\xff"
                                                      "\xff\xff\xff\x0f",
                                     14, &got),
                     0);
    assert_true(got.u.open_session.has_segment && got.u.open_session.segment == 64);
    assert_true(got.u.open_session.memory.has_ratio && got.u.open_session.memory.ratio == 16);
    assert_true(got.u.open_session.memory.has_sinks &&
                got.u.open_session.memory.sinks == UINT32_MAX);
    assert_false(got.u.open_session.memory.has_budget || got.u.open_session.memory.has_hydrate);
}

static void test_garbage(void **state)
{
    struct wire_req req, head;
    struct wire_rep rep;
    uint64_t seed = 42;
    uint32_t understood = 0, requests = 0;
    size_t len;

    (void)state;
    for (int i = 0; i < 30000; i++) {
        struct wire_rep r = sample_rep((enum wire_rep_kind)(i % WIRE_REP__N));
        struct wire_req rq = sample_req((enum wire_req_kind)(i % WIRE_REQ__N));
        uint8_t *copy;
        int n_flips = 1 + (int)(hostile_random(&seed) % 8);

        if (i % 2 ? sample_no_rep(r.kind) : sample_no_req(rq.kind))
            continue;
        assert_int_equal(i % 2 ? wire_rep_pack(&out, &r, buf, sizeof(buf), &len)
                               : wire_req_pack(&out, &rq, buf, sizeof(buf), &len),
                         0);
        copy = malloc(len);
        memcpy(copy, buf, len);
        for (int f = 0; f < n_flips; f++)
            copy[hostile_random(&seed) % len] ^= (uint8_t)(1u << (hostile_random(&seed) % 8));
        if (i % 3 == 0)
            for (size_t j = 0; j < len; j++)
                copy[j] = (uint8_t)hostile_random(&seed);
        understood += wire_rep_unpack(&in, copy, len, &rep) == 0;
        wire_req_head(copy, len, &head);
        if (wire_req_unpack(&in, copy, len, &req) == 0) {
            /* Where all can be read, the head alone says the same. */
            assert_true(head.id == req.id && head.bulk_len == req.bulk_len &&
                        head.kind == req.kind);
            requests++;
        }
        free(copy);
    }
    assert_true(requests > 1000);
    /* Flips inside of strings and numbers are messages still: the test does reach the inside. */
    assert_true(understood > 1000);
}

/* Writes "field number: bytes" as protobuf does; returns the end. */
static uint8_t *put_bytes(uint8_t *p, unsigned field, const void *data, size_t len)
{
    *p++ = (uint8_t)(field << 3 | 2);
    if (field > 15) {
        p[-1] = (uint8_t)((field << 3 | 2) & 0x7f) | 0x80;
        *p++ = (uint8_t)(field >> 4);
    }
    for (size_t n = len; n >= 128; n >>= 7)
        *p++ = (uint8_t)(n | 0x80);
    *p++ = (uint8_t)(len >> (len >= 1u << 14 ? 14 : len >= 128 ? 7 : 0));
    memcpy(p, data, len);
    return p + len;
}

static void test_unknown_enum_values(void **state)
{
    /* Append { kind = 3 }, Append { kind = -1 }, Score { want = 2 }, OpenSession { priority = 9 }
     */
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        { "\x62\x02\x10\x03", 4 },
        { "\x62\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13 },
        { "\x82\x01\x02\x20\x02", 5 },
        { "\x5a\x02\x10\x09", 4 },
        { "\xca\x01\x02\x08\x02", 5 },     /* List { kind = 2 } */
        { "\xda\x01\x02\x30\x03", 5 },     /* AddDocument { kind = 3 } */
        { "\x5a\x04\x22\x02\x08\x7f", 6 }, /* and OpenSession { memory { compressor = 127 } } */
    };
    struct wire_req req;
    struct wire_rep rep;

    (void)state;
    assert_int_equal(wire_req_unpack(&in, (const uint8_t *)"\x62\x02\x10\x02", 4, &req), 0);
    assert_int_equal(req.u.append.kind, WIRE_APPEND_CHAT);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(wire_req_unpack(&in, (const uint8_t *)bad[i].bytes, bad[i].len, &req),
                         -ENOTSUP);
    /* What is checked by the schema is a cast after that: both have the same values. */
    assert_int_equal(gistd__append__kind__descriptor.n_values, WIRE_APPEND_CHAT + 1);
    assert_int_equal(gistd__score__kind__descriptor.n_values, WIRE_SCORE_TOKENS + 1);
    assert_int_equal(gistd__score__want__descriptor.n_values, WIRE_SCORE_LOGITS + 1);
    assert_int_equal(gistd__open_session__priority__descriptor.n_values, WIRE_BACKGROUND + 1);
    assert_int_equal(gistd__named__descriptor.n_values, WIRE_NAMED_DOCUMENT + 1);
    assert_int_equal(gistd__listed__state__descriptor.n_values, WIRE_ROW_DAMAGED + 1);
    assert_int_equal(gistd__error__code__descriptor.n_values, WIRE_E__N);
    /* What a later daemon may say: Done { reason = 100 }, Error { code = 100 }, a body 100. */
    assert_int_equal(wire_rep_unpack(&in, (const uint8_t *)"\x72\x02\x08\x64", 4, &rep), 0);
    assert_int_equal(rep.u.done.reason, WIRE_REASON__N);
    assert_int_equal(wire_rep_unpack(&in, (const uint8_t *)"\x9a\x01\x02\x08\x64", 5, &rep), 0);
    assert_int_equal(rep.u.error.code, WIRE_E_INTERNAL);
    assert_int_equal(wire_rep_unpack(&in, (const uint8_t *)"\x08\x07\x18\x01\xa2\x06\x00", 7, &rep),
                     0);
    assert_true(rep.kind == WIRE_REP__N && rep.id == 7 && rep.last);
}

/* Bodies without a field have a short way of their own. Here are the same messages as protobuf
 * allows them too, and what is nearly one. */
static void test_plain_bodies(void **state)
{
    struct wire_req req;
    struct wire_rep rep;
    size_t len;

    (void)state;
    /* Field order, an unknown field, fields twice, a number of more bytes than it needs. */
    static const struct {
        const char *bytes;
        size_t len;
    } same[] = {
        { "\x08\x05\x10\x07\xa2\x01\x00", 7 },
        { "\xa2\x01\x00\x10\x07\x08\x05", 7 },
        { "\x08\x05\x10\x07\xa2\x06\x00\xa2\x01\x00", 10 },
        { "\x08\x09\x08\x05\x10\x07\xa2\x01\x00", 9 },
        { "\x08\x85\x80\x00\x10\x07\xa2\x01\x00", 9 },
        { "\x08\x05\x10\x07\xa2\x01\x02\x08\x01", 9 },
    };
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        assert_int_equal(wire_req_unpack(&in, (const uint8_t *)same[i].bytes, same[i].len, &req),
                         0);
        assert_int_equal(req.kind, WIRE_PING);
        assert_int_equal(req.id, 5);
        assert_int_equal(req.bulk_len, 7);
    }
    /* The bytes are fixed: another implementation reads them. */
    req = (struct wire_req){ .id = 300, .bulk_len = 7, .kind = WIRE_PING };
    assert_int_equal(wire_req_pack(&out, &req, buf, sizeof(buf), &len), 0);
    assert_int_equal(len, 8);
    assert_memory_equal(buf, "\x08\xac\x02\x10\x07\xa2\x01\x00", 8);
    rep = (struct wire_rep){ .id = 1, .last = true, .kind = WIRE_PONG };
    assert_int_equal(wire_rep_pack(&out, &rep, buf, sizeof(buf), &len), 0);
    assert_int_equal(len, 7);
    assert_memory_equal(buf, "\x08\x01\x18\x01\x92\x01\x00", 7);

    /* Cut, too long, a wrong type: not one of them. */
    assert_int_equal(wire_req_unpack(&in, (const uint8_t *)"\xa2\x01", 2, &req), -EBADMSG);
    assert_int_equal(wire_req_unpack(&in, (const uint8_t *)"\xa2\x01\x01", 3, &req), -EBADMSG);
    assert_int_equal(wire_req_unpack(&in, (const uint8_t *)"\xa0\x01\x00", 3, &req), -EBADMSG);
    assert_int_equal(wire_req_unpack(&in, (const uint8_t *)"\x08", 1, &req), -EBADMSG);
    for (uint64_t id = 1; id; id <<= 1) {
        struct wire_req r = { .id = id, .bulk_len = ~id, .kind = WIRE_GET_STATS };

        assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
        assert_int_equal(wire_req_unpack(&in, buf, len, &req), 0);
        sample_same_req(&r, &req);
    }
}

static void test_no_body(void **state)
{
    struct wire_req req;
    struct wire_rep rep;

    (void)state;
    assert_int_equal(wire_req_unpack(&in, buf, 0, &req), -EBADMSG);
    assert_int_equal(wire_rep_unpack(&in, buf, 0, &rep), -EBADMSG);
    /* Only an id; only a body that a later version may know (field 100). */
    assert_int_equal(wire_req_unpack(&in, (const uint8_t *)"\x08\x01", 2, &req), -EBADMSG);
    assert_int_equal(wire_req_unpack(&in, (const uint8_t *)"\xa2\x06\x00", 3, &req), -ENOTSUP);
}

static void test_limits(void **state)
{
    static char text[WIRE_STRING_MAX + 2];
    static uint8_t body[CHAN_FRAME_MAX];
    struct wire_req r = { .kind = WIRE_HELLO }, got;
    struct wire_chat_message many[WIRE_MESSAGES_MAX + 1];
    uint8_t *p, *end;
    size_t len;

    (void)state;
    memset(text, 'x', WIRE_STRING_MAX);
    r.u.hello.client = text;
    assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
    assert_int_equal(wire_req_unpack(&in, buf, len, &got), 0);
    text[WIRE_STRING_MAX] = 'x';
    assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), -EMSGSIZE);
    assert_non_null(strstr(out.why.text, "client"));
    end = put_bytes(body, 1, text, WIRE_STRING_MAX + 1);
    end = put_bytes(buf, 10, body, (size_t)(end - body));
    assert_int_equal(wire_req_unpack(&in, buf, (size_t)(end - buf), &got), -EMSGSIZE);
    assert_non_null(strstr(in.why.text, "client"));

    for (uint32_t i = 0; i <= WIRE_MESSAGES_MAX; i++)
        many[i] = (struct wire_chat_message){ "assistant", 1000 + i };
    r = (struct wire_req){ .kind = WIRE_APPEND, .u.append = { .messages = many } };
    r.u.append.n_messages = WIRE_MESSAGES_MAX;
    assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
    assert_int_equal(wire_req_unpack(&in, buf, len, &got), 0);
    sample_same_req(&r, &got);
    r.u.append.n_messages = WIRE_MESSAGES_MAX + 1;
    assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), -EMSGSIZE);

    /* 17 stop strings, which wire_req_pack would not write. */
    for (p = body, len = 0; len < WIRE_STOPS_MAX + 1; len++)
        p = put_bytes(p, 10, "s", 1);
    end = put_bytes(buf, 13, body, (size_t)(p - body));
    assert_int_equal(wire_req_unpack(&in, buf, (size_t)(end - buf), &got), -EMSGSIZE);

    assert_int_equal(wire_req_unpack(&in, buf, CHAN_FRAME_MAX + 1, &got), -EMSGSIZE);
}

/* A small frame that unpacks to a lot: empty chat messages, two bytes each. */
static void test_scratch_is_the_limit(void **state)
{
    static uint8_t body[60000];
    struct wire_scratch small;
    struct wire_req got, r = sample_req(WIRE_APPEND);
    uint8_t *p = body, *end;
    size_t len;

    (void)state;
    while (p < body + sizeof(body) - 2)
        p = put_bytes(p, 3, "", 0);
    end = put_bytes(buf, 12, body, (size_t)(p - body));
    assert_int_equal(wire_req_unpack(&in, buf, (size_t)(end - buf), &got), -EMSGSIZE);

    /* Every size of scratch: it fits, or -EMSGSIZE, and nothing is written behind it (ASan). */
    assert_int_equal(wire_req_pack(&out, &r, buf, sizeof(buf), &len), 0);
    for (size_t size = 1; size < 2000; size += 7) {
        int err;

        assert_int_equal(wire_scratch_open(&small, size), 0);
        err = wire_req_unpack(&small, buf, len, &got);
        assert_true(err == 0 || err == -EMSGSIZE);
        assert_true(size > 64 || err == -EMSGSIZE);
        assert_true(size < 1500 || err == 0);
        wire_scratch_close(&small);
    }
}

static void test_names(void **state)
{
    (void)state;
    for (int e = 0; e < WIRE_E__N; e++)
        assert_string_not_equal(wire_error_name((enum wire_error)e), "unknown");
    assert_string_equal(wire_error_name(WIRE_E_CONTEXT_LENGTH_EXCEEDED), "context_length_exceeded");
    assert_string_equal(wire_error_name(WIRE_E__N), "unknown");
    assert_string_equal(wire_reason_name(WIRE_REASON_END_OF_TEXT), "end_of_text");
    assert_string_equal(wire_reason_name((enum wire_reason)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_request_comes_back),
        cmocka_unit_test(test_every_reply_comes_back),
        cmocka_unit_test(test_unset_fields),
        cmocka_unit_test(test_cut_frames),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_zero_and_nothing),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_unknown_enum_values),
        cmocka_unit_test(test_plain_bodies),
        cmocka_unit_test(test_no_body),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_scratch_is_the_limit),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, open_scratch, close_scratch);
}
