"""Notes that live in the visitor's session: `rota run notes.wsgi:application --http 127.0.0.1:8080`."""
