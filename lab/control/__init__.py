"""The control plane: etcd, kube-apiserver and kubectl."""
