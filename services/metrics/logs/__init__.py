"""logs: log records as services send them over OTLP, kept in bounded room."""
