#include "train/stop.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/base.h"
#include "comm/comm.h"

/* Signal handlers take no argument: static storage. */
static volatile sig_atomic_t loop_stops, stop_flag, is_over, over_code;
static atomic_bool save_flag; /* read and cleared atomically, so that no request is lost */
static bool hangup_is_ignored;
static double deadline; /* of time_now(); 0: none */

static void on_stop(int sig) {
    (void)sig;
    stop_flag = 1;
    if (loop_stops) return;
    if (is_over) comm_end_now(over_code, "");
    comm_end_now(status_exit_code(ERR_STOPPED),
                 "cria: stopped before the first step as asked (signal); --resume auto starts "
                 "again from the newest checkpoint\n");
}

static void on_save(int sig) {
    (void)sig;
    atomic_store(&save_flag, true);
}

void stop_remember_hangup(void) {
    struct sigaction found;
    hangup_is_ignored = sigaction(SIGHUP, NULL, &found) == 0 && found.sa_handler == SIG_IGN;
}

void stop_install(void) {
    static const int stops[] = {SIGTERM, SIGINT, SIGHUP, SIGXCPU, SIGUSR2};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
        sigfillset(&stop.sa_mask);
        if (stops[i] == SIGINT)
            stop.sa_flags |= (int)SA_RESETHAND; /* a second Ctrl-C ends at once */
        if (stops[i] == SIGHUP && hangup_is_ignored) stop.sa_handler = SIG_IGN;
        sigaction(stops[i], &stop, NULL);
    }
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_save, .sa_flags = SA_RESTART}, NULL);
    signal(SIGXFSZ, SIG_IGN);
}

void stop_set_limit(double minutes) {
    deadline = minutes > 0 ? time_now() + 60 * minutes : 0;
}
void stop_wait_for_loop(void) {
    loop_stops = 1;
}
void stop_command_is_over(int exit_code) {
    over_code = exit_code;
    is_over = 1;
}

bool stop_requested(void) {
    return stop_flag != 0;
}
bool stop_time_is_up(void) {
    return deadline > 0 && time_now() >= deadline;
}
bool stop_take_save_request(void) {
    return atomic_exchange(&save_flag, false);
}
