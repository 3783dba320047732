// The first process of a pod on the test nodes.
module example.invalid/tools/pause

go 1.26.0
