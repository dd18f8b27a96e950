/* What the parts of init share: see ../init.c for what it is. */
#ifndef STOKER_INIT_H
#define STOKER_INIT_H
#define _GNU_SOURCE

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Only root can read what lies there but resolv.conf and machine-id: our own programs, and the way into the jobs' cgroups. */
#define OWN "/run/stoker"
#define OWN_PRIVATE OWN "/private"
#define JOB_UID 1000u
#define JOB_GID 1000u

/* init.c */
_Noreturn void end_machine(void);
/* Onto the console, in one line of at most 300 bytes, then the machine ends: a machine that is not what it should be is no use. */
_Noreturn void fatal(const char *what, const char *which);
void say(const char *what, const char *which); /* the same, and goes on */
uint64_t now_millis(void);

/* root.c: stage 1 */
bool in_initramfs(void);
_Noreturn void enter_root(void); /* becomes stage 2 in the machine's root file system */

/* mounts.c: stage 2 */
void open_console(void);
bool put_text(const char *path, const char *text); /* into a file that is there; false = errno says why */
bool new_file(const char *path, mode_t mode, const char *text, size_t size); /* instead of one that is there */
void kernel_files(void);
void known_files(void); /* resolv.conf, machine-id and the job's user, where programs look for them */

/* options.c: the kernel's command line */
void options_read(void);
const char *option(const char *name); /* its value, or NULL; `name` ends with '=' */

/* net.c */
struct address {
  char ip[16], gateway[16], hostname[65], nameservers[2][16];
  int prefix;
};
void network_up(bool with_default_route); /* lo, and eth0 by `stoker.ip=` or `ip=` */
void default_route(void);
void forget_neighbour(void);               /* the gateway's hardware address: a restored machine has another gateway */
const struct address *network_address(void);

/* personalise.c */
/* Reads the first frame of a connection and does what it says. Ends the machine if it is anything else. */
void personalise(int fd);

/* serve.c */
_Noreturn void serve_wire(int tcp_port, int vsock_port);
_Noreturn void serve_agent(void);
_Noreturn void become_init(const char *path); /* the root's own */

#endif
