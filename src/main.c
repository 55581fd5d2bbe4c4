/* main.c: the process. The only place that ends it with a status (comm_abort aside). */
#include <signal.h>

#include "base/output.h"
#include "cli/commands.h"
#include "comm/comm.h"
#include "base/progress.h"
#include "health/watchdog.h"
#include "train/stop.h"

/* Every way out of main. Collective commands agree on a failure, and one rank reports it. */
static int finish(Status st) {
    Status printed = output_finish();
    if (st == OK) st = printed;
    if (st != OK && status_message()[0] != '\0' && comm_world_rank() == 0) {
        StrBuf text = {0};
        strbuf_printf(&text, "cria: %s%s\n", st == ERR_STOPPED ? "" : "error: ", status_message());
        output_write(OUTPUT_STDERR, text.text, text.len);
        strbuf_free(&text);
    }
    stop_command_is_over(status_exit_code(st));
    progress_beat(0, "ending MPI");
    comm_finish(status_exit_code(st));
    watchdog_stop();
    if (st != OK) comm_keep_status();
    return status_exit_code(st);
}

/* Before the constructors of libraries: UCX's print to stdout where /proc is missing, and take
 * SIGHUP. */
static void before_libraries(void) {
    output_open();
    stop_remember_hangup();
}
__attribute__((section(".preinit_array"),
               used)) static void (*const call_it)(void) = before_libraries;

int main(int argc, char **argv) {
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is then an error of the write that meets it */
    return finish(commands_run(argc - 1, argv + 1));
}
