echo "running 3 tests"
echo "test adds ... ok"
echo "test divides ... FAILED: want 2, got 3"
echo "test multiplies ... ok"
echo "1 of 3 tests failed" >&2
exit 4
