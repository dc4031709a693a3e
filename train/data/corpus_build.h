/* train/data/corpus_build.h - makes a corpus file (train/data/corpus.h) of texts.
 *
 * An input is a file or a folder, which is walked in the order of its names; hidden files are left
 * out, empty ones too. What ends in .jsonl has one JSON object a line:
 *
 *     {"text": "..."}                                    loss on all of it
 *     {"messages": [{"role": "...", "content": "..."}]}  by the model's chat template: loss on the
 *                                                        assistant's answers and what ends them
 *     {"prompt": "...", "completion": "..."}             loss on the completion
 *     {"segments": [{"label": true, "text": "..."}]}     loss where label is true
 *
 * and other keys are left out; every other file is one document of plain text. All of it must be
 * UTF-8. Special tokens are not looked for in the texts.
 *
 * The file gets its name when it is complete and on the disk: a build that was cut leaves no file.
 *
 * Errors     -EINVAL with a sentence (file, line, found, expected), -ENOMEM, -ECANCELED (progress
 *            said so), or the errno of the I/O.
 */
#ifndef TRAIN_DATA_CORPUS_BUILD_H
#define TRAIN_DATA_CORPUS_BUILD_H

#include "base/why.h"

#include <stddef.h>
#include <stdint.h>

/* One input as a command line has it: "NAME=PATH", "PATH" (the name is the path's last part,
 * without .jsonl). More inputs may have one name. */
struct corpus_build {
    const char *model; /* GGUF file with the tokenizer */
    const char *out;
    const char *const *inputs;
    size_t n_inputs;
    uint32_t long_tokens; /* documents of so many tokens or more weigh long_weight, */
    float long_weight;    /* all others 1; 0 stands for 1 */
    /* May be NULL. Called after a file, or now and then inside of one; non-zero ends the build. */
    int (*progress)(void *arg, const char *path, uint64_t n_documents, uint64_t n_tokens);
    void *arg;
};

struct corpus_built {
    uint64_t n_documents, n_tokens, n_loss, bytes_in, bytes_lost;
};

/* bytes_lost: bytes that the model has no token for (engine/text/vocab.h). ret may be NULL. */
int corpus_build(const struct corpus_build *b, struct corpus_built *ret, struct why *why);

#endif
