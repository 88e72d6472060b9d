/* SPDX-License-Identifier: MIT
 *
 * host MODE [CASE [NUMBER]]: see host.h. Prints what failed and "N passed, N failed"; the exit code is 0 when
 * nothing failed. Environment: ASIO_LONG=1 leaves nothing out; ASIO_PATIENCE=N multiplies limits;
 * ASIO_SHARE=K/N: of mode alloc the Kth of N parts. */
#include "host.h"

#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifdef SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

const char *host_only;
long host_number;
bool host_long;
int host_share = 1, host_shares = 1;

static char doing[300] = "starting";
static atomic_long passed, failed;
static unsigned patience = 1;
static int caught = -1; /* the file that stands for standard error */
static int saved = -1;  /* standard error itself */

/* ---- last words --------------------------------------------------------------------------- */

void host_doing(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(doing, sizeof doing, fmt, args);
    va_end(args);
}

static void say(const char *text)
{
    ssize_t n = write(STDOUT_FILENO, text, strlen(text));
    (void)n;
}

static void last_words(void)
{
    say("died: ");
    say(doing);
    say("\n");
    host_print_stderr(8000);
}

static void on_crash(int signum)
{
    last_words();
    signal(signum, SIG_DFL);
    raise(signum);
}

static void catch_crashes(void)
{
    signal(SIGABRT, on_crash);
#ifdef SANITIZED
    __sanitizer_set_death_callback(last_words);
#else
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
#endif
}

/* ---- limits ------------------------------------------------------------------------------- */

static volatile sig_atomic_t late;
static unsigned limit;

static void on_alarm(int signum)
{
    (void)signum;
    if (late) {
        say("out of time: ");
        say(doing);
        say("\n");
        host_print_stderr(8000);
        _exit(1);
    }
    late = 1;
    alarm(limit);
    kill(getpid(), SIGINT);
}

/* Outside of asio.run; within, it is the core's. */
static void on_interrupt(int signum)
{
    (void)signum;
}

void host_limit(unsigned seconds)
{
    limit = seconds * patience;
    late = 0;
    alarm(limit);
}

bool host_late(void)
{
    return late;
}

/* ---- standard error ----------------------------------------------------------------------- */

void host_catch_stderr(void)
{
    FILE *file = tmpfile();
    if (!file)
        abort();
    caught = fileno(file);
    saved = dup(STDERR_FILENO);
    dup2(caught, STDERR_FILENO);
}

static void release_stderr(void)
{
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
}

void host_clear_stderr(void)
{
    fflush(stderr);
#ifdef SANITIZED /* one that was not told to end the process */
    if (host_stderr_has("Sanitizer"))
        host_check(false, "a sanitizer complains");
#endif
    if (ftruncate(caught, 0) == 0)
        lseek(caught, 0, SEEK_SET);
}

/* From a signal handler too. */
void host_print_stderr(size_t max)
{
    char text[4096];
    off_t end = lseek(caught, 0, SEEK_END), at = end > (off_t)max ? end - (off_t)max : 0;
    ssize_t n;
    while (caught >= 0 && (n = pread(caught, text, sizeof text, at)) > 0) {
        ssize_t out = write(STDOUT_FILENO, text, (size_t)n);
        (void)out;
        at += n;
    }
}

bool host_stderr_has(const char *text)
{
    char content[16384];
    fflush(stderr);
    ssize_t n = pread(caught, content, sizeof content - 1, 0);
    content[n > 0 ? n : 0] = '\0';
    return strstr(content, text) != NULL;
}

/* ---- checks and processes ----------------------------------------------------------------- */

bool host_check(bool ok, const char *fmt, ...)
{
    passed += ok;
    failed += !ok;
    if (ok)
        return true;
    va_list args;
    va_start(args, fmt);
    printf("FAILED %s: ", doing);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    fflush(stdout);
    host_print_stderr(2000);
    return false;
}

bool host_fork(int (*fn)(void *arg), void *arg)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(limit / 2); /* alarms are not inherited; let it speak first */
        exit(fn(arg));
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        printf("  ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static const struct {
    const char *name;
    void (*run)(void);
} modes[] = { { "alloc", mode_alloc }, { "states", mode_states }, { "threads", mode_threads },
    { "signals", mode_signals }, { "find", mode_find }, { "layers", mode_layers } };

static void (*find_mode(const char *name))(void)
{
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(modes[i].name, name) == 0)
            return modes[i].run;
    return NULL;
}

int main(int argc, char **argv)
{
    void (*run)(void) = argc > 1 ? find_mode(argv[1]) : NULL;
    if (!run) {
        fputs("usage: host alloc|states|threads|signals|find|layers [CASE [NUMBER]]\n", stderr);
        return 2;
    }
    host_only = argv[2];
    host_number = argc > 3 ? atol(argv[3]) : 0;
    host_long = getenv("ASIO_LONG") && strcmp(getenv("ASIO_LONG"), "1") == 0;
    if (getenv("ASIO_SHARE") &&
        (sscanf(getenv("ASIO_SHARE"), "%d/%d", &host_share, &host_shares) != 2 || host_shares < 1)) {
        fputs("host: ASIO_SHARE is not K/N\n", stderr);
        return 2;
    }
#ifdef SANITIZED
    patience = 6;
#endif
    if (getenv("ASIO_PATIENCE"))
        patience *= (unsigned)atoi(getenv("ASIO_PATIENCE"));
    setvbuf(stdout, NULL, _IOLBF, 0);
    memory_install();
    host_catch_stderr();
    catch_crashes();
    signal(SIGALRM, on_alarm);
    signal(SIGINT, on_interrupt);
    setenv("ASIO_RESOLVER", "getaddrinfo", 0); /* of which system.c holds the strings; or ares */
    names_serve();
    run();
    host_limit(0);
    host_clear_stderr();
    release_stderr();
    printf("%ld passed, %ld failed\n", (long)passed, (long)failed);
    return failed > 0;
}
