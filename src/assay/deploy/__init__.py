"""Files with which others run the service: Docker, Kubernetes, systemd, Grafana."""
