#include "train/stop.h"

#include <signal.h>
#include <stddef.h>

#include "base.h"

/* Signal handlers can reach nothing but objects of static storage. */
static volatile sig_atomic_t stop_flag, save_flag;
static double deadline; /* of time_now(); 0: none */

static void on_stop(int sig) {
    (void)sig;
    stop_flag = 1;
}

static void on_save(int sig) {
    (void)sig;
    save_flag = 1;
}

void stop_install(double time_limit_minutes) {
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    struct sigaction save = {.sa_handler = on_save, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &stop, NULL);
    stop.sa_flags |= (int)SA_RESETHAND; /* a second Ctrl-C ends the program at once */
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGUSR1, &save, NULL);
    signal(SIGXFSZ, SIG_IGN);
    deadline = time_limit_minutes > 0 ? time_now() + 60 * time_limit_minutes : 0;
}

bool stop_requested(void) { return stop_flag != 0; }
bool stop_time_is_up(void) { return deadline > 0 && time_now() >= deadline; }

bool stop_take_save_request(void) {
    bool asked = save_flag != 0;
    save_flag = 0;
    return asked;
}
