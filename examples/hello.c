#include <stdio.h>
#include <unistd.h>

int main(void) {
  printf("Hello from C, process %d of my own little world\n", (int)getpid());
  return 0;
}
