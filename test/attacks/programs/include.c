/* The compiler is to read what the program could not. */
__asm__(".incbin \"/etc/shadow\"");
#include "/etc/shadow"
int main(void) { return 0; }
