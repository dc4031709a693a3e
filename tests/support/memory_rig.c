#include "tests/support/memory_rig.h"

#include "base/least.h"

int memory_rig_open(struct memory_rig *m, const struct rig_opts *opts, struct why *why)
{
    int r = rig_open(&m->rig, opts, why);

    m->served = (struct served){ .model = NULL };
    if (r < 0)
        return r;
    m->served = (struct served){ .backend = m->rig.backend,
                                 .model = m->rig.model,
                                 .context_max = m->rig.model->n_ctx_train };
    r = compress_open(m->rig.model, m->rig.backend, &m->served.compressor);
    if (r < 0)
        memory_rig_close(m);
    return r;
}

void memory_rig_close(struct memory_rig *m)
{
    compress_close(m->served.compressor);
    rig_close(&m->rig);
}

int memory_rig_settle(struct memory_rig *m, struct memory *memory, uint32_t chunk)
{
    for (;;) {
        struct forward_run run;
        struct memory_need need;
        uint32_t n_out;
        int r;

        memory_settle(memory, NULL);
        if (!memory_behind(memory))
            return 0;
        r = memory_plan(memory, chunk, &run, &need);
        if (r == 0)
            r = forward_step(&m->rig.forward, &run, 1, NULL, &n_out);
        if (r < 0)
            return r;
        memory_ran(memory, &run);
    }
}

int memory_rig_feed(struct memory_rig *m, struct memory *memory, const uint32_t *ids, uint32_t n,
                    uint32_t chunk, float *ret)
{
    uint32_t done = 0, n_out;

    while (done < n) {
        struct forward_run run = { .seq = memory->seq,
                                   .tokens = ids + done,
                                   .want = ret ? FORWARD_WANT_ALL : FORWARD_WANT_NONE };
        int r = memory_rig_settle(m, memory, chunk);

        if (r < 0)
            return r;
        run.n_tokens = min_u32(min_u32(n - done, chunk), memory_room(memory));
        memory_watch(memory, &run);
        r = seq_reserve(memory->seq, run.n_tokens);
        if (r == 0)
            r = forward_step(&m->rig.forward, &run, 1, NULL, &n_out);
        if (r < 0)
            return r;
        memory_ran(memory, &run);
        if (ret)
            r = forward_logits(&m->rig.forward, 0, n_out,
                               ret + (size_t)done * m->rig.model->n_vocab);
        if (r < 0)
            return r;
        done += run.n_tokens;
    }
    return 0;
}
