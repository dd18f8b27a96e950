/* Says what comes of a connection: `ok` or the error's number, and the first nameserver it was given. usage: reach ADDRESS PORT */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
  if (count != 3) return 64;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[2]))};
  inet_pton(AF_INET, words[1], &to.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) printf("ok ");
  else printf("%d ", errno);
  char line[256] = "";
  FILE *file = fopen("/etc/resolv.conf", "r");
  if (file != NULL && fgets(line, sizeof line, file) == NULL) line[0] = 0;
  printf("%s", line);
  return 0;
}
