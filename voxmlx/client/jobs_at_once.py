"""Jobs of transcribe that a server does, some of them at a time."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from voxmlx.cli.arguments import report_error
from voxmlx.cli.jobs import Job
from voxmlx.client.remote_files import RemoteFiles
from voxmlx.client.upload_progress import UploadProgress
from voxmlx.errors import AudioError
from voxmlx.events import Event

__all__ = ["run_jobs"]


def run_jobs(
    jobs: Sequence[Job],
    files: RemoteFiles,
    n_at_once: int,
    progress: UploadProgress,
    write: Callable[[Job, Sequence[Event]], None],
) -> int:
    """Transcribe all jobs and `write` each; return how many could not be read.

    These are reported. Files are written as soon as they are there, what is printed in
    the order of the jobs. Raises ServerError and OutputError, which end all jobs.
    """
    is_ordered = any(path is None for job in jobs for _, path in job.outputs)
    left = deque(jobs)
    running: dict[Future[list[Event]], Job] = {}
    n_failed = 0

    def work(job: Job) -> list[Event]:
        with progress.file(job.name) as sent:
            return list(files.transcribe(job.name, job.audio, sent))

    pool = ThreadPoolExecutor(n_at_once, thread_name_prefix="upload")
    try:
        while left or running:
            while left and len(running) < n_at_once:
                job = left.popleft()
                running[pool.submit(work, job)] = job
            awaited = list(running)[:1] if is_ordered else list(running)
            for future in wait(awaited, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    write(job, future.result())
                except AudioError as error:
                    report_error(error)
                    n_failed += 1
    except BaseException:
        files.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return n_failed
