/* forked.h - see forked.c; each function prints a line, and returns whether it holds. */
#ifndef SB_FORKED_H
#define SB_FORKED_H

/* Before any context has been opened. */
int check_fork_handler(void);

int check_forked_cuda(void);
int check_torn(void);

#endif
