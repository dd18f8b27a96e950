"""Prints primes as it finds them, for about a second: their lines come one by one, not all at the end."""
import time


def primes():
    found = []
    candidate = 2
    while True:
        if all(candidate % prime for prime in found):
            found.append(candidate)
            yield candidate
        candidate += 1


for count, prime in enumerate(primes(), start=1):
    print(f"prime {count} is {prime}", flush=True)
    if count == 10:
        break
    time.sleep(0.1)
