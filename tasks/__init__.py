"""The Celery side: the app, its worker and beat, the command line, one thin task per operation.

`celery -A tasks worker`, `celery -A tasks beat` and `celery -A tasks flower` find `app` here.
Importing this package opens no connection and reads no settings: Celery imports it for every
command once the project is installed.
"""

from tasks.application import app

__all__ = ["app"]
