/* work.h: work that each rank does alone and that others may have to wait for, even for minutes. */
#ifndef CRIA_COMM_WORK_H
#define CRIA_COMM_WORK_H

#include "comm/comm.h"

/* Runs work(arg) on every rank, in a thread, and agrees on the Status as comm_agree() does.
 * Progress of any rank's work (progress_note()) counts as progress of every rank, in `phase`, so
 * that no watchdog takes a waiting rank for stuck. Collective over `host`. */
Status comm_agree_on_work(Comm *host, const char *phase, Status (*work)(void *arg), void *arg);

#endif
