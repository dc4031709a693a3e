/* daemon/config.h - the options of a daemon, gathered once at start.
 *
 * A flag comes before the environment, the environment before the config file, the file before the
 * default. The table is daemon/options.def, its reader base/options.h; --config, --check-config,
 * --print-config, --help and --version are flags only.
 *
 * Without --config the config file is $XDG_CONFIG_HOME/gistd/gistd.conf (~/.config when that is not
 * set) if it is there, else /etc/gistd/gistd.conf if that is there. Only one file is read.
 *
 * Ownership  a plain struct, no pointers.
 * Errors     -EINVAL (a bad value or flag), or the errno of the config file; why has one sentence:
 *            option, where it came from, what was found, what is allowed.
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include "base/options.h"

#define CONFIG_TEXT_MAX   OPTIONS_TEXT_MAX
#define CONFIG_SOCKET_MAX 107 /* sun_path with its NUL */

enum config_action {
    CONFIG_SERVE,
    CONFIG_HELP,
    CONFIG_VERSION,
    CONFIG_CHECK,
    CONFIG_PRINT,
    CONFIG_PLAN
};

/* In the order of the choices in options.def. */
enum config_kv_type { CONFIG_KV_F16, CONFIG_KV_F32, CONFIG_KV_Q8_0 };
enum config_split { CONFIG_SPLIT_LAYER, CONFIG_SPLIT_TENSOR };         /* as enum backend_split */
enum config_io { CONFIG_IO_AUTO, CONFIG_IO_URING, CONFIG_IO_THREADS }; /* as enum io_kind */
enum config_store_restore { CONFIG_RESTORE_AUTO, CONFIG_RESTORE_ALWAYS };
enum config_keep { CONFIG_KEEP_AUTO, CONFIG_KEEP_YES, CONFIG_KEEP_NO };
enum config_sandbox { CONFIG_SANDBOX_AUTO, CONFIG_SANDBOX_YES, CONFIG_SANDBOX_NO };
enum config_log_level { CONFIG_LOG_ERROR, CONFIG_LOG_WARNING, CONFIG_LOG_INFO, CONFIG_LOG_DEBUG };

struct config {
#define OPTION(field, name, kind, ...) OPTIONS_FIELD_##kind(field)
#include "daemon/options.def"
#undef OPTION
    enum config_action action;
    char file[CONFIG_TEXT_MAX + 1]; /* the config file that was read; empty: none */
};

/* env is environ or what a test wants. */
int config_load(struct config *c, int argc, char *const *argv, char *const *env, struct why *why);

/* One option by its name, as the file would set it; where is what the sentence says ("--threads").
 */
int config_set(struct config *c, const char *name, const char *value, const char *where,
               struct why *why);
void config_defaults(struct config *c);

/* What host-bytes says: a size, 0 for none, CONFIG_HOST_AUTO. -EINVAL: none of them. */
#define CONFIG_HOST_AUTO UINT64_MAX
int config_host_bytes(const struct config *c, uint64_t *ret, struct why *why);

/* The name of a CHOICE option's value: config_choice("cpu", 1) is "avx2". */
const char *config_choice(const char *name, uint32_t value, char *ret, size_t cap);

void config_print_help(FILE *f);
void config_print_example(FILE *f);          /* a config file: every option, commented out */
void config_print_mdoc(FILE *f, bool flags); /* the man pages' lists: of flags, or of keys */

#endif
