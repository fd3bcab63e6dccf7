/* Counts instructions by running a call in a child, one step at a time. */
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check/check.h"

/* The child stops itself before and after the call. */
static void child(void (*call)(check_fn *, const void *), check_fn *run, const void *args) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(1);
    raise(SIGSTOP);
    call(run, args);
    raise(SIGSTOP);
    _exit(0);
}

/* Steps between the two stops; -1: there were none. */
static int64_t count_steps(pid_t pid) {
    int status = 0;
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) return -1;
    for (int64_t n = 1;; n++) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid ||
            !WIFSTOPPED(status)) {
            return -1;
        }
        if (WSTOPSIG(status) == SIGSTOP) return n;
        if (WSTOPSIG(status) != SIGTRAP) return -1; /* it crashed */
    }
}

static int64_t count_all(void (*call)(check_fn *, const void *), check_fn *run, const void *args) {
    const pid_t pid = fork();
    if (pid == 0) child(call, run, args);
    if (pid < 0) return -1;
    const int64_t n = count_steps(pid);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return n;
}

static void call_nothing(check_fn *run, const void *args) {
    (void)run;
    (void)args;
}

int64_t check_count(void (*call)(check_fn *, const void *), check_fn *run, const void *args) {
    static int64_t without; /* the way from stop to stop */
    if (without == 0) without = count_all(call_nothing, run, args);
    const int64_t with = count_all(call, run, args);
    return with < 0 || without < 0 ? -1 : with - without;
}
