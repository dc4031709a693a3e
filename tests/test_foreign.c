/* tests/test_foreign.c - escape sequences, C1 controls, line breaks, turned writing and bytes that
 * are not UTF-8 in all that the programs show and did not write themselves: a model's metadata,
 * tokens and path, adapters' metadata and names, clients' names, labels and requests,
 * configurations, corpora. Would catch: one of them that reaches a terminal or a log as it is; one
 * that is not shown at all.
 */
#include "base/utf8.h"
#include "tests/support/daemon_fixture.h"
#include "tests/support/file.h"
#include "tests/support/gguf_build.h"
#include "tests/support/scratch.h"
#include "train/file/adapter_write.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* A title for the window, a cleared screen by C1, a line of its own, DEL, writing from right to
 * left; then bytes that are no text. */
#define CONTROLS                                                                                   \
    "\033]0;x\007\xc2\x9b"                                                                         \
    "2J\r\ngistd-ok\x7f\xe2\x80\xae"
#define NASTY "<" CONTROLS "\x9b\xff>"
/* As a file's name, and where only UTF-8 gets as far as being shown. */
#define NASTY_NAME "<" CONTROLS ">"

/* Only what a terminal prints: newlines are the program's own. */
static void check_shown(const char *what, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t at = 0, n;

    for (; at < len; at += n) {
        uint32_t c = utf8_check(p + at, len - at, &n) == UTF8_OK ? utf8_get(p + at, n) : 0;

        if ((c >= 0x20 && c < 0x7f) || c == '\n' || (c >= 0xa0 && c != 0x202e))
            continue;
        fail_msg("%s: byte %zu of %zu, 0x%02x, gets through", what, at, len, p[at]);
    }
    /* The line that the text would have forged. */
    assert_null(strstr(text, "\ngistd-ok"));
}

/* Runs a program of $BUILD: its exit status, and what it said, which must be fit to see and, with
 * quotes, show the nasty text's beginning. */
static void runs(int want, bool quotes, const char *program, ...)
{
    const char *build = getenv("BUILD"), *argv[32];
    char path[256], out[SCRATCH_PATH_MAX];
    uint8_t *text;
    size_t n = 1, len;
    int status, fd;
    va_list ap;
    pid_t pid;

    (void)snprintf(path, sizeof(path), "%s/%s", build ? build : "build/release", program);
    argv[0] = path;
    va_start(ap, program);
    while ((argv[n] = va_arg(ap, const char *)))
        n++;
    va_end(ap);
    fd = open(scratch_path(out, "out"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
        (void)dup2(fd, STDOUT_FILENO);
        (void)dup2(fd, STDERR_FILENO);
        (void)execv(path, (char *const *)argv);
        _exit(127);
    }
    (void)close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    text = file_read(out, &len);
    check_shown(argv[1], (const char *)text, len);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != want ||
        (quotes && !strstr((const char *)text, "<\xef\xbf\xbd]0;x")))
        fail_msg("%s %s: status 0x%x, not exit code %d; or it does not show what it is about: %s",
                 program, argv[1], (unsigned)status, want, text);
    free(text);
}

static struct gguf_build *tiny(void)
{
    struct gguf_build_shape shape = gguf_build_tiny();

    return gguf_build_model(&shape);
}

/* --- files that are refused ------------------------------------------------------------------- */

/* A model whose key has the text as its value, which is what is wrong with it; gist-adapter looks
 * at no tokenizer. */
static void refuses_model(const char *key, int adapter_code)
{
    char path[SCRATCH_PATH_MAX], out[SCRATCH_PATH_MAX];
    struct gguf_build *b = tiny();

    gguf_build_str(b, key, NASTY);
    gguf_build_write(b, scratch_path(path, "bad.gguf"));
    gguf_build_free(b);
    runs(1, false, "gistd", "--model", path, "--socket", scratch_path(out, "s"), NULL);
    runs(adapter_code, false, "gist-adapter", "init", "-f", "-m", path, scratch_path(out, "o"),
         NULL);
}

static void test_models(void **state)
{
    char path[SCRATCH_PATH_MAX], sock[SCRATCH_PATH_MAX];
    const char *merges[] = { NASTY };
    struct gguf_build *b = tiny();

    (void)state;
    refuses_model("general.architecture", 1);
    refuses_model("tokenizer.ggml.model", 0);
    refuses_model("tokenizer.ggml.pre", 0);
    refuses_model("llama.rope.scaling.type", 1);
    gguf_build_str_array(b, "tokenizer.ggml.merges", merges, 1);
    gguf_build_write(b, scratch_path(path, "merges.gguf"));
    gguf_build_free(b);
    runs(1, true, "gistd", "--model", path, "--socket", scratch_path(sock, "s"), NULL);
    b = tiny();
    gguf_build_random(b, NASTY, QUANT_F32, 1, (const uint64_t[]){ 32 }, 0, 1, 1);
    gguf_build_duplicate_tensor(b, NASTY);
    gguf_build_write(b, scratch_path(path, "tensor.gguf"));
    gguf_build_free(b);
    runs(1, false, "gistd", "--model", path, "--socket", sock, NULL);
}

/* Paths, values and names that a person's command line or configuration holds. */
static void test_arguments(void **state)
{
    char conf[SCRATCH_PATH_MAX], sock[SCRATCH_PATH_MAX], text[SCRATCH_PATH_MAX];
    FILE *f;

    (void)state;
    (void)scratch_path(sock, "none");
    runs(1, true, "gistd", "--model", "/nowhere/" NASTY, "--socket", sock, NULL);
    runs(2, true, "gistd", "--kv-type", NASTY, NULL);
    runs(2, true, "gistd", "--" NASTY, NULL);
    runs(2, true, "gistd", "--config", "/nowhere/" NASTY, NULL);
    f = fopen(scratch_path(conf, "bad.conf"), "w");
    assert_non_null(f);
    (void)fputs("cpu = <"
                "\033]0;x\007\xc2\x9b\xff>\n",
                f);
    (void)fclose(f);
    runs(2, true, "gistd", "--check-config", "--config", conf, NULL);
    runs(2, true, "gist-train", "--config", "/nowhere/" NASTY, NULL);
    runs(2, true, "gist-train", "--precision", NASTY, NULL);
    runs(2, true, "gist-train", "corpus", "--" NASTY, NULL);
    runs(1, true, "gist-train", "plot", "/nowhere/" NASTY, sock, NULL);
    runs(1, true, "gist-adapter", "show", "/nowhere/" NASTY, NULL);
    runs(2, true, "gist-adapter", "--" NASTY, NULL);
    runs(2, false, "gist-adapter", NASTY, NULL);
    runs(2, true, "gistctl", NASTY, NULL);
    runs(2, true, "gistctl", "--" NASTY, NULL);
    runs(2, true, "gistctl", "ask", "--" NASTY, NULL);
    runs(2, true, "gistctl", "ask", "--top-k", NASTY, "x", NULL);
    runs(2, true, "gistctl", "ask", "--compressor", NASTY, "x", NULL);
    runs(2, true, "gistctl", "chat", NASTY, NULL);
    runs(2, true, "gistctl", "status", NASTY, NULL);
    runs(2, false, "gistctl", "detokenize", "12", NASTY, NULL);
    runs(1, true, "gistctl", "score", "/nowhere/" NASTY, NULL);
    runs(1, true, "gistctl", "ask", "-f", "/nowhere/" NASTY, "x", NULL);
    runs(3, true, "gistctl", "status", "--socket", "/nowhere/" NASTY, NULL);
    f = fopen(scratch_path(text, "nul"), "w");
    assert_non_null(f);
    (void)fwrite("a\0b", 1, 3, f);
    (void)fclose(f);
    runs(1, false, "gistctl", "ask", "-f", text, "x", NULL);
}

/* --- files that are taken --------------------------------------------------------------------- */

static void write_model(const char *path)
{
    struct gguf_build *b = tiny();

    gguf_build_str(b, "general.name", NASTY);
    gguf_build_write(b, path);
    gguf_build_free(b);
}

/* An adapter file of that name with such metadata and such a tensor: shown, not served. */
static void test_adapter_shown(void **state)
{
    static const float values[4];
    struct adapter_write_pair pairs[] = { { "format", "gist-adapter" },
                                          { "base_name", NASTY_NAME },
                                          { "training", NASTY_NAME },
                                          { NASTY_NAME, "x" } };
    struct adapter_write_tensor t = { NASTY_NAME, SAFETENSORS_F32, 1, { 4 }, values };
    struct adapter_write w = { .pairs = pairs, .n_pairs = 4, .tensors = &t, .n_tensors = 1 };
    char path[SCRATCH_PATH_MAX], model[SCRATCH_PATH_MAX], sock[SCRATCH_PATH_MAX];
    struct why why = { "" };

    (void)state;
    if (adapter_write(scratch_path(path, "shown.safetensors"), &w, &why) < 0)
        fail_msg("%s", why.text);
    runs(0, true, "gist-adapter", "show", path, NULL);
    write_model(scratch_path(model, "model.gguf"));
    runs(1, false, "gistd", "--model", model, "--adapter", path, "--socket",
         scratch_path(sock, "none"), NULL);
}

static void test_corpus(void **state)
{
    char text[SCRATCH_PATH_MAX], source[2 * SCRATCH_PATH_MAX], out[SCRATCH_PATH_MAX];
    FILE *f = fopen(scratch_path(text, "text"), "w");

    (void)state;
    assert_non_null(f);
    (void)fputs("A text that has some words.\n", f);
    (void)fclose(f);
    (void)snprintf(source, sizeof(source), "%s=%s", NASTY, text);
    (void)scratch_path(out, "out.corpus");
    runs(0, true, "gist-train", "corpus", "--model", daemon_fixture_model(DAEMON_FIXTURE_TINY), out,
         source, NULL);
    runs(1, true, "gist-train", "corpus", "--model", daemon_fixture_model(DAEMON_FIXTURE_TINY), out,
         "/nowhere/" NASTY, NULL);
}

/* --- a daemon full of them -------------------------------------------------------------------- */

static void test_daemon(void **state)
{
    char model[SCRATCH_PATH_MAX], adapter[SCRATCH_PATH_MAX];
    const char *args[] = { "--model",    model, "--socket",    NULL,    "--adapter", adapter,
                           "--kv-bytes", "16M", "--log-level", "debug", "--pin=no",  NULL };
    struct gist_memory memory = { .size = sizeof(memory), .adapter = NASTY };
    struct gist_policy policy = { .size = sizeof(policy), .label = NASTY };
    struct gist_message odd = { NASTY, "x" };
    struct daemon_fixture d;
    gist_session *s, *refused;
    const char *log;
    gist_conn *c;

    (void)state;
    write_model(scratch_path(model, "model.gguf"));
    runs(0, true, "gist-adapter", "init", "-m", model,
         scratch_path(adapter, NASTY_NAME ".safetensors"), NULL);
    args[3] = scratch_path(d.socket, "gistd.sock");
    daemon_fixture_spawn(&d, args);
    if (!daemon_fixture_notified(&d, "READY=1", DAEMON_FIXTURE_PATIENCE_MS))
        fail_msg("the daemon does not serve: %s", daemon_fixture_log(&d));
    assert_int_equal(gist_connect(d.socket, NASTY, &c), 0);
    assert_int_equal(gist_open(c, &policy, &s), 0);
    policy.memory = &memory;
    assert_true(gist_open(c, &policy, &refused) < 0);
    check_shown("gist_error", gist_error(c), strlen(gist_error(c)));
    assert_true(gist_append_chat(s, &odd, 1, GIST_OPEN_ANSWER, NULL) < 0);
    check_shown("gist_error", gist_error(c), strlen(gist_error(c)));

    runs(0, true, "gistctl", "--socket", d.socket, "status", NULL);
    runs(0, false, "gistctl", "--socket", d.socket, "status", "--json", NULL);
    runs(1, true, "gistctl", "--socket", d.socket, "ask", "--adapter", NASTY, "x", NULL);
    runs(0, false, "gistctl", "--socket", d.socket, "tokenize", model, NULL);

    gist_disconnect(c);
    daemon_fixture_stop(&d);
    log = daemon_fixture_log(&d);
    check_shown("the log", log, strlen(log));
    assert_non_null(strstr(log, "<\xef\xbf\xbd]0;x")); /* the model's name */
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_adapter_shown), cmocka_unit_test(test_corpus),
        cmocka_unit_test(test_daemon),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
