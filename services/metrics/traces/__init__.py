"""traces: the spans that services report: read from OTLP, kept for a while in bounded room, found again."""
