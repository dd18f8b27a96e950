/* lo and eth0. What the command line says is the host's word, so it is only parsed, not distrusted. */
#include "init.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CARD "eth0"
#define CARD_MILLIS 5000u

static struct address address;
const struct address *network_address(void) { return &address; }

/* The part of `text` before `end` or its own end, without the separator; where the next part begins, or NULL. */
static const char *part(const char *text, char end, char *into, size_t size) {
  if (text == NULL) {
    *into = 0;
    return NULL;
  }
  const char *stop = strchr(text, end);
  size_t length = stop == NULL ? strlen(text) : (size_t)(stop - text);
  if (length >= size) length = size - 1;
  memcpy(into, text, length);
  into[length] = 0;
  return stop == NULL ? NULL : stop + 1;
}

/* ADDRESS/PREFIX,GATEWAY */
static bool parse_own(const char *text) {
  char prefix[4];
  text = part(text, '/', address.ip, sizeof address.ip);
  text = part(text, ',', prefix, sizeof prefix);
  part(text, ',', address.gateway, sizeof address.gateway);
  return sscanf(prefix, "%d", &address.prefix) == 1 && address.prefix >= 0 && address.prefix <= 32;
}

/* ADDRESS:SERVER:GATEWAY:MASK:HOST:DEVICE:AUTO:DNS:DNS, as the kernel's ip= has it. Debian's cloud kernel does nothing with it. */
static bool parse_kernels(const char *text) {
  char unused[64], mask[16];
  struct in_addr bits;
  text = part(text, ':', address.ip, sizeof address.ip);
  text = part(text, ':', unused, sizeof unused);
  text = part(text, ':', address.gateway, sizeof address.gateway);
  text = part(text, ':', mask, sizeof mask);
  text = part(text, ':', address.hostname, sizeof address.hostname);
  text = part(text, ':', unused, sizeof unused);
  text = part(text, ':', unused, sizeof unused);
  for (int i = 0; i < 2; i++) text = part(text, ':', address.nameservers[i], sizeof address.nameservers[i]);
  if (inet_aton(mask, &bits) == 0) return false;
  address.prefix = __builtin_popcount(bits.s_addr);
  return true;
}

static struct sockaddr inet(in_addr_t ip) {
  struct sockaddr any;
  struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = ip};
  memcpy(&any, &in, sizeof any);
  return any;
}

static in_addr_t parsed(const char *ip) {
  struct in_addr at;
  errno = EINVAL;
  if (inet_aton(ip, &at) == 0) fatal("not an address:", ip);
  return at.s_addr;
}

static struct ifreq card(const char *name) {
  struct ifreq request = {0};
  strcpy(request.ifr_name, name);
  return request;
}

static int control(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fatal("open", "a socket");
  return fd;
}

static void up(int fd, const char *name) {
  struct ifreq request = card(name);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) fatal("start", name);
}

/* Also to a gateway that is not in the card's own network, as in one of /32. */
static void route(int fd, in_addr_t to, in_addr_t mask, in_addr_t by) {
  static char device[] = CARD;
  struct rtentry entry = {
    .rt_dst = inet(to),
    .rt_genmask = inet(mask),
    .rt_gateway = inet(by),
    .rt_flags = RTF_UP | (by == 0 ? RTF_HOST : RTF_GATEWAY),
    .rt_dev = device
  };
  if (ioctl(fd, SIOCADDRT, &entry) < 0 && errno != EEXIST) fatal("route by", address.gateway);
}

void default_route(void) {
  if (*address.gateway == 0) return;
  in_addr_t gateway = parsed(address.gateway);
  int fd = control();
  route(fd, gateway, INADDR_BROADCAST, 0);
  route(fd, INADDR_ANY, INADDR_ANY, gateway);
  close(fd);
}

void forget_neighbour(void) {
  if (*address.gateway == 0) return;
  struct arpreq request = {.arp_pa = inet(parsed(address.gateway)), .arp_dev = CARD};
  int fd = control();
  ioctl(fd, SIOCDARP, &request); /* nothing to forget is fine */
  close(fd);
}

void network_up(bool with_default_route) {
  int fd = control();
  up(fd, "lo");
  const char *own = option("stoker.ip="), *kernels = option("ip=");
  if (own != NULL || kernels != NULL) {
    errno = EINVAL;
    if (own != NULL ? !parse_own(own) : !parse_kernels(kernels)) fatal("not understood: ip", own != NULL ? own : kernels);
    struct ifreq request = card(CARD);
    uint64_t until = now_millis() + CARD_MILLIS;
    while (ioctl(fd, SIOCGIFINDEX, &request) < 0) {
      if (now_millis() > until) fatal("find the card", CARD);
      nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    /* Its network is of IPv4 alone: nobody shall find another way out, nor wait for one. */
    put_text("/proc/sys/net/ipv6/conf/" CARD "/disable_ipv6", "1");
    request = card(CARD);
    request.ifr_addr = inet(parsed(address.ip));
    if (ioctl(fd, SIOCSIFADDR, &request) < 0) fatal("give an address to", CARD);
    request = card(CARD);
    request.ifr_netmask = inet(address.prefix == 0 ? 0 : htonl(~0u << (32 - address.prefix)));
    if (ioctl(fd, SIOCSIFNETMASK, &request) < 0) fatal("give a network to", CARD);
    up(fd, CARD);
    if (with_default_route) default_route();
    if (*address.hostname != 0) sethostname(address.hostname, strlen(address.hostname));
    char text[64] = "";
    int n = 0;
    for (int i = 0; i < 2; i++) {
      if (*address.nameservers[i] != 0)
        n += snprintf(text + n, sizeof text - (size_t)n, "nameserver %s\n", address.nameservers[i]);
    }
    if (n > 0 && !new_file(OWN "/resolv.conf", 0644, text, (size_t)n)) say("write", OWN "/resolv.conf");
  }
  close(fd);
}
