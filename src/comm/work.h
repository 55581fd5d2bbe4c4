/* work.h: work that each rank does alone, while others may have to wait for minutes. */
#ifndef CRIA_COMM_WORK_H
#define CRIA_COMM_WORK_H

#include "comm/comm.h"

/* Runs work(arg) on every rank, in a thread, and agrees on the Status as comm_agree() does. While
 * the work of any rank gets on, by progress_note(), every rank is in `phase` and gets on: nobody is
 * taken for stuck. Collective over `host`. */
Status comm_agree_on_work(Comm *host, const char *phase, Status (*work)(void *arg), void *arg);

#endif
