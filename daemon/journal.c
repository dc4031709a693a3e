/* By hand and not by sd_journal_send: that one opens a socket of its own in whichever thread comes
 * first, behind the sandbox, and writes long lines to files in /dev/shm.
 */
#include "daemon/journal.h"

#include "base/shown.h"
#include "base/socket_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define NAME_MAX_SHOWN 192u /* of what a client calls itself */
#define FIELDS_MAX     768u

static const char *const ids[JOURNAL_MESSAGE__N] = {
#define MESSAGE(name, id, text) [JOURNAL_##name] = (id),
#include "daemon/messages.def"
#undef MESSAGE
};

int journal_open(const char *path)
{
    return socket_file_connect(path, SOCK_DGRAM);
}

/* All but MESSAGE. A client's name is its own choice, and a line break in it would be a field of
 * ours. */
static size_t put_fields(char fields[FIELDS_MAX], int priority, const struct journal_about *about)
{
    char name[NAME_MAX_SHOWN + 1];
    size_t n =
        (size_t)snprintf(fields, FIELDS_MAX, "PRIORITY=%d\nSYSLOG_IDENTIFIER=gistd\n", priority);

    if (about && about->message != JOURNAL_NO_MESSAGE)
        n += (size_t)snprintf(fields + n, FIELDS_MAX - n, "MESSAGE_ID=%s\n", ids[about->message]);
    if (about && about->client)
        n += (size_t)snprintf(fields + n, FIELDS_MAX - n, "GISTD_CLIENT=%" PRIu64 "\n",
                              about->client);
    if (about && about->pid)
        n += (size_t)snprintf(fields + n, FIELDS_MAX - n, "GISTD_CLIENT_PID=%d\nGISTD_UID=%u\n",
                              (int)about->pid, (unsigned)about->uid);
    if (about && about->name && about->name[0]) {
        name[shown_put(SHOWN_LINE, about->name, strlen(about->name), name, NAME_MAX_SHOWN)] = '\0';
        n += (size_t)snprintf(fields + n, FIELDS_MAX - n, "GISTD_CLIENT_NAME=%s\n", name);
    }
    if (about && about->request)
        n += (size_t)snprintf(fields + n, FIELDS_MAX - n, "GISTD_REQUEST=%" PRIu64 "\n",
                              about->request);
    return n;
}

/* Gathered from where the parts lie: one datagram is one line, or none. */
int journal_send(int fd, int priority, const struct journal_about *about, const char *text,
                 size_t n)
{
    char fields[FIELDS_MAX];
    struct iovec parts[] = { { .iov_base = (char *)"MESSAGE=", .iov_len = 8 },
                             { .iov_base = (char *)text, .iov_len = n },
                             { .iov_base = (char *)"\n", .iov_len = 1 },
                             { .iov_base = fields } };
    const struct msghdr m = { .msg_iov = parts, .msg_iovlen = 4 };

    parts[3].iov_len = put_fields(fields, priority, about);
    return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}
